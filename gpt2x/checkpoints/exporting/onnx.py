"""ONNX graphs, which onnxruntime and many other programs run (https://onnx.ai).

A graph takes input_ids [B, T] and returns logits [B, T, V], for any B, and any T up to n_positions. It has the weights
under Hugging Face's names and in its layout, which is the one that the products of ONNX take.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2x.checkpoints.exporting.hf import write_tokenizer
from gpt2x.checkpoints.names import to_file
from gpt2x.errors import UserError
from gpt2x.model.gpt2 import GPT2, Transformer
from gpt2x.paths import reporting_errors
from gpt2x.tokenizer import Tokenizer


class Onnx:
    """model.onnx, with model.onnx.data if the weights have more than 2 GB; and the tokenizer's files."""

    name = "onnx"
    dtypes = ("float32",)
    weights = "model.onnx"
    note = "the graph has no KV cache: for each new token, it computes the whole text again"

    def stored_dtype(self, tensor: str, dtype: str) -> str:
        return dtype

    def check(self, model: GPT2, tokenizer: Tokenizer, dtype: str) -> None:
        try:
            import onnx  # noqa: F401
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise UserError(
                f"task.format=onnx: needs a package that is not installed ({error}): "
                "python -m pip install 'gpt2x[onnx]'"
            ) from None

    def write(self, folder: Path, model: GPT2, tokenizer: Tokenizer, dtype: str) -> None:
        write_tokenizer(folder, tokenizer)
        example = torch.zeros(2, 3, dtype=torch.long)
        sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens")}
        with _quiet():
            program = torch.onnx.export(
                _Graph(model),
                (example,),
                dynamo=True,
                verbose=False,
                input_names=["input_ids"],
                output_names=["logits"],
                dynamic_shapes={"input_ids": sizes},
            )
        assert program is not None
        for node in program.model.graph:
            node.metadata_props.clear()  # lines of code, with the paths of this machine
        with reporting_errors(folder / self.weights):
            program.save(folder / self.weights)


class _Graph(nn.Module):
    """The model in plain layers, without a choice that depends on T: torch.export cannot follow one."""

    def __init__(self, model: GPT2) -> None:
        super().__init__()
        with torch.device("meta"):
            self.transformer = Transformer(model.config)
        for name, module in list(self.named_modules()):
            if isinstance(module, nn.Linear):
                self.set_submodule(name, _Conv1D(module))
        self.load_state_dict({name: tensor.float() for name, tensor in to_file(model).items()}, assign=True)
        self.eval().requires_grad_(False)

    def forward(self, input_ids: Tensor) -> Tensor:
        """input_ids [B, T] -> logits [B, T, V]."""
        positions = torch.arange(input_ids.shape[1])
        mask = torch.where(positions <= positions[:, None], 0.0, -torch.inf)  # [T, T], added to the scores
        x = self.transformer.wte(input_ids) + self.transformer.wpe(positions)
        for block in self.transformer.h:
            x = block(x, mask)
        return F.linear(self.transformer.ln_f(x), self.transformer.wte.weight)


class _Conv1D(nn.Module):
    """nn.Linear with its matrix as [in, out]. The exporter would transpose the other one, and forget its name."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(linear.weight.t()), linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings, such as that torchvision is not installed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
