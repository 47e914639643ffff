"""The model under test: gpt2x's own, or one from a user's file."""

from gpt2x.parity.subject.code import SubjectError
from gpt2x.parity.subject.module import Subject
from gpt2x.parity.subject.target import import_target

__all__ = ["Subject", "SubjectError", "import_target"]
