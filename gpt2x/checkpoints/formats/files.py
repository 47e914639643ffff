"""One file of weights: which format it has, and errors as one line."""

from pathlib import Path

import torch
from torch import Tensor

from gpt2x.checkpoints.contents import Contents
from gpt2x.checkpoints.formats.flax import Flax
from gpt2x.checkpoints.formats.format import Format, check_number
from gpt2x.checkpoints.formats.gguf import Gguf
from gpt2x.checkpoints.formats.keras import Keras
from gpt2x.checkpoints.formats.llmc import LlmC
from gpt2x.checkpoints.formats.onnx import Onnx
from gpt2x.checkpoints.formats.safetensors import Safetensors
from gpt2x.checkpoints.formats.torch_pickle import TorchPickle
from gpt2x.errors import UserError
from gpt2x.memory import is_out_of_memory
from gpt2x.paths import check_regular, shown
from gpt2x.visible import visible

FILES: tuple[Format, ...] = (Safetensors(), Gguf(), LlmC(), Flax(), Keras(), Onnx(), TorchPickle())
"""The formats of single files. The first one that matches reads the file; the last one matches every file."""


def read_file(file: Path) -> Contents:
    """The contents of one file. Raises UserError for a file that cannot be read, or holds anything but tensors."""
    check_regular(file)
    if file.stat().st_size == 0:
        raise UserError(f"{shown(file)}: the file is empty")
    return read_with(next(format for format in FILES if format.matches(file)), file)


def read_with(format: Format, path: Path) -> Contents:
    """What the format reads at a path. Raises UserError where that is not possible."""
    try:
        contents = format.read(path)
    except (OSError, ImportError) as error:
        if is_out_of_memory(error):
            raise
        if isinstance(error, ImportError):
            raise UserError(
                f"{shown(path)}: {format.name} files need a package that is not installed ({error}): "
                f"python -m pip install {error.name}"
            ) from None
        raise UserError(f"{shown(path)}: cannot be read: {error.strerror or error}") from None
    check_number(len(contents.tensors), path)
    for name, tensor in contents.tensors.items():
        _check_size(name, tensor, path)
    return contents


def _check_size(name: str, tensor: Tensor, path: Path) -> None:
    """Raises UserError for a tensor that is not dense, or repeats fewer values: it may pretend any size."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise UserError(f"{shown(path)}: {visible(name)[:80]} is not a dense tensor")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise UserError(f"{shown(path)}: {visible(name)[:80]} declares more values than the file holds")
