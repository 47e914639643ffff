"""Hugging Face directories with pytorch_model.bin: a state dict that torch.save wrote."""

from pathlib import Path
from typing import Any

import torch

from gpt2x.checkpoints.exporting.hf import FLOATS, stored, write_config, write_tokenizer
from gpt2x.checkpoints.names import to_file
from gpt2x.model.gpt2 import GPT2
from gpt2x.paths import write_whole
from gpt2x.tokenizer import Tokenizer


class TorchStateDict:
    """config.json, pytorch_model.bin with all names of transformers' GPT2LMHeadModel, and the tokenizer's files."""

    name = "pt"
    dtypes = FLOATS
    weights = "pytorch_model.bin"
    note = None

    def stored_dtype(self, tensor: str, dtype: str) -> str:
        return dtype

    def check(self, model: GPT2, tokenizer: Tokenizer, dtype: str) -> None:
        pass

    def write(self, folder: Path, model: GPT2, tokenizer: Tokenizer, dtype: str) -> None:
        write_config(folder, model, tokenizer, getattr(torch, dtype))
        write_tokenizer(folder, tokenizer)
        state = stored(to_file(model), getattr(torch, dtype))
        state["lm_head.weight"] = state["transformer.wte.weight"]  # one tensor, which torch.save stores once
        save(folder / self.weights, state)


def save(path: Path, content: dict[str, Any]) -> None:
    """Writes a file as torch.save does, with the same bytes each time: it would write the name of the file into it."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            torch.save(content, stream)

    write_whole(path, write)
