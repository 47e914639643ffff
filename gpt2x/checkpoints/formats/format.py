"""The protocol of a format."""

from pathlib import Path
from typing import Protocol

from gpt2x.checkpoints.contents import Contents
from gpt2x.errors import UserError
from gpt2x.paths import shown

MOST_TENSORS = 20_000  # GPT-2 XL has 580, and 96 buffers in old files


class Format(Protocol):
    """One way to keep a checkpoint. A format imports its package only when it reads, so that a missing package takes
    no other format down."""

    name: str
    """What users call it, for messages."""

    def matches(self, path: Path) -> bool:
        """Whether the file or directory is of this format. It exists, and a file is not empty."""

    def read(self, path: Path) -> Contents:
        """The tensors, and what the file says about them.

        Raises UserError for what holds anything else, OSError where a file cannot be read, and ImportError where the
        format's package is not installed. No memory is allocated for sizes that the file only declares.
        """


def check_number(n: int, path: Path) -> None:
    """Raises UserError for a file that has more tensors than any GPT-2: making so many may take minutes."""
    if n > MOST_TENSORS:
        raise UserError(f"{shown(path)}: {n} tensors, more than any GPT-2 has")
