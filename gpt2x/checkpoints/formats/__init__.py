"""The formats of checkpoints: a path to named tensors, in the names and layout of the file.

One module per format, each with one object in FORMATS or, for formats of single files, in FILES.
"""

from pathlib import Path

from gpt2x.checkpoints.contents import Contents
from gpt2x.checkpoints.formats.directory import Directory
from gpt2x.checkpoints.formats.files import read_file, read_with
from gpt2x.checkpoints.formats.format import Format
from gpt2x.checkpoints.formats.lora import Lora
from gpt2x.checkpoints.formats.tensor_bundle import TensorBundle

FORMATS: tuple[Format, ...] = (Lora(), TensorBundle(), Directory())
"""The formats of directories, and of files that belong to several. The first one that matches reads the path."""


def read_contents(path: Path) -> Contents:
    """The tensors of a checkpoint, and what its files say about them.

    Nothing is read before it is used where the tensors can be views of the mapped files. Raises UserError for a path
    that is not a checkpoint, and for pickles that hold anything but tensors, without executing them.
    """
    for format in FORMATS:
        if format.matches(path):
            return read_with(format, path)
    return read_file(path)
