"""The formats that a model is written in: one module per format, each with one object in EXPORTERS.

To add a format: write a module with a class that fits Exporter, add an object of it to EXPORTERS, and its name to
FORMATS in gpt2x.config.tasks.export.
"""

from pathlib import Path
from typing import Protocol

import torch

from gpt2x.checkpoints.exporting.gguf import Gguf
from gpt2x.checkpoints.exporting.hf import HuggingFace
from gpt2x.checkpoints.exporting.llmc import LlmC
from gpt2x.checkpoints.exporting.nanogpt import NanoGPT
from gpt2x.checkpoints.exporting.onnx import Onnx
from gpt2x.checkpoints.exporting.pt import TorchStateDict
from gpt2x.checkpoints.names import to_file
from gpt2x.errors import UserError
from gpt2x.model.gpt2 import GPT2
from gpt2x.tokenizer import Tokenizer


class Exporter(Protocol):
    """One way to write a model and its tokenizer."""

    @property
    def name(self) -> str:
        """The value of task.format."""

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The dtypes in which the format can hold matrices."""

    @property
    def weights(self) -> str:
        """The name of the file with the weights, in the folder that is written."""

    @property
    def note(self) -> str | None:
        """What users of the format must know."""

    def stored_dtype(self, tensor: str, dtype: str) -> str:
        """The dtype in which a tensor, by its Hugging Face name, is stored in a file of this dtype."""

    def check(self, model: GPT2, tokenizer: Tokenizer, dtype: str) -> None:
        """Raises UserError for a model that the format cannot hold, and if a package is not installed."""

    def write(self, folder: Path, model: GPT2, tokenizer: Tokenizer, dtype: str) -> None:
        """Writes the files into an existing folder, in a dtype of `dtypes`. Raises UserError if this fails."""


EXPORTERS: tuple[Exporter, ...] = (HuggingFace(), TorchStateDict(), NanoGPT(), LlmC(), Gguf(), Onnx())


def exporter_for(format: str, dtype: str) -> Exporter:
    """The exporter of a format. Raises UserError if it cannot hold matrices in this dtype."""
    exporter = next(exporter for exporter in EXPORTERS if exporter.name == format)
    if dtype not in exporter.dtypes:
        others = [other.name for other in EXPORTERS if dtype in other.dtypes]
        raise UserError(
            f"dtype={dtype}: task.format={format} holds {' or '.join(exporter.dtypes)}; "
            f"{dtype} is for task.format={' or '.join(others)}"
        )
    return exporter


def check_range(model: GPT2, exporter: Exporter, dtype: str) -> None:
    """Raises UserError if a value is too large for the dtype in which it would be stored."""
    for name, tensor in to_file(model).items():
        stored = exporter.stored_dtype(name, dtype)
        # q8_0 multiplies numbers up to 127 by a scale in float16.
        most = 127 * torch.finfo(torch.float16).max if stored == "int8" else torch.finfo(getattr(torch, stored)).max
        largest = tensor.abs().max().item()
        if largest > most:
            raise UserError(
                f"dtype={dtype}: {name} holds {largest:.4g}, beyond the {most:.4g} of {stored}; use dtype=bfloat16 or "
                "dtype=float32"
            )
