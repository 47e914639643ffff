"""Hugging Face directories with pytorch_model.bin: a state dict that torch.save wrote."""

from functools import partial
from pathlib import Path

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
        write_whole(folder / self.weights, partial(torch.save, state))
