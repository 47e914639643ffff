"""The model under test: ours, or one from a user's file."""

from gpt2x.parity.subject.module import Subject, default_dtype
from gpt2x.parity.subject.target import SubjectError, import_target

__all__ = ["Subject", "SubjectError", "default_dtype", "import_target"]
