"""The model under test: ours, or one from a user's file."""

from gpt2x.subject.module import Subject, float32_is_float64
from gpt2x.subject.target import SubjectError, import_target

__all__ = ["Subject", "SubjectError", "float32_is_float64", "import_target"]
