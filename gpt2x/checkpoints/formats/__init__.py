"""The formats of weight files: a path to named tensors, in the names and layout of the file.

One module per format, each with one object in FORMATS. A format imports its package only when it reads a file, so
that a missing package takes no other format down.
"""

from pathlib import Path
from typing import Protocol

from torch import Tensor

from gpt2x.checkpoints.formats.safetensors import Safetensors
from gpt2x.checkpoints.formats.torch_pickle import TorchPickle
from gpt2x.checkpoints.locate import weight_files
from gpt2x.errors import UserError
from gpt2x.memory import is_out_of_memory
from gpt2x.paths import shown


class Format(Protocol):
    """One way to keep tensors in a file."""

    name: str
    """What users call it, for messages."""

    def matches(self, path: Path) -> bool:
        """Whether the file is of this format. The file exists and is not empty."""

    def read(self, path: Path) -> dict[str, Tensor]:
        """All tensors, memory-mapped where possible.

        Raises UserError for a file that holds anything else, OSError where the file cannot be read, and ImportError
        where the format's package is not installed.
        """


FORMATS: tuple[Format, ...] = (Safetensors(), TorchPickle())
"""The first one that matches reads the file; the last one matches every file."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a weights file, or of the files in a Hugging Face directory.

    Nothing is read before it is used, as the tensors are views of the mapped files. Raises UserError for a path
    that is not a checkpoint, and for pickles that hold anything but tensors, without executing them.
    """
    tensors: dict[str, Tensor] = {}
    for file in weight_files(path):
        tensors |= _read_file(file)
    return tensors


def _read_file(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise UserError(f"{shown(file)}: no such file")
    if file.stat().st_size == 0:
        raise UserError(f"{shown(file)}: the file is empty")
    format = next(format for format in FORMATS if format.matches(file))
    try:
        return format.read(file)
    except (OSError, ImportError) as error:
        if is_out_of_memory(error):
            raise
        if isinstance(error, ImportError):
            raise UserError(
                f"{shown(file)}: {format.name} files need a package that is not installed ({error}): "
                f"python -m pip install {error.name}"
            ) from None
        raise UserError(f"{shown(file)}: cannot be read: {error.strerror or error}") from None
