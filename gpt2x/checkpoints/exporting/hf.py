"""Hugging Face directories with model.safetensors, which transformers and gpt2x load."""

import json
import shutil
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from gpt2x.checkpoints.names import dtype_name, to_file
from gpt2x.errors import UserError
from gpt2x.model.gpt2 import GPT2
from gpt2x.paths import shown, write_text, write_whole
from gpt2x.tokenizer import Tokenizer

FLOATS = ("float32", "float64", "bfloat16", "float16")


class HuggingFace:
    """config.json, model.safetensors, vocab.json, merges.txt and tokenizer_config.json."""

    name = "hf"
    dtypes = FLOATS
    weights = "model.safetensors"
    note = None

    def stored_dtype(self, tensor: str, dtype: str) -> str:
        return dtype

    def check(self, model: GPT2, tokenizer: Tokenizer, dtype: str) -> None:
        pass

    def write(self, folder: Path, model: GPT2, tokenizer: Tokenizer, dtype: str) -> None:
        save_checkpoint(folder, model, tokenizer, getattr(torch, dtype))


def save_checkpoint(directory: Path, model: GPT2, tokenizer: Tokenizer, dtype: torch.dtype) -> None:
    """Writes a Hugging Face directory with model.safetensors in `dtype`.

    Each file is moved into place whole, model.safetensors last, so that a killed process leaves the old weights or
    the new ones. Raises UserError if a file cannot be written, or the folder above does not exist.
    """
    from safetensors.torch import save_file

    try:
        directory.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {shown(directory)}: {error.strerror}") from None
    write_config(directory, model, tokenizer, dtype)
    write_tokenizer(directory, tokenizer)
    tensors = stored(to_file(model), dtype)
    write_whole(directory / "model.safetensors", partial(save_file, tensors, metadata={"format": "pt"}))


def write_config(directory: Path, model: GPT2, tokenizer: Tokenizer, dtype: torch.dtype) -> None:
    """Writes config.json, from which transformers and gpt2x read the architecture."""
    architecture = asdict(model.config)
    dropout = architecture.pop("dropout")  # gpt2x's own name; the others are those of Hugging Face
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        **architecture,
        **dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), dropout),
        "bos_token_id": tokenizer.eos_id,
        "eos_token_id": tokenizer.eos_id,
        "tie_word_embeddings": True,
        "dtype": dtype_name(dtype),
    }
    write_text(directory / "config.json", json.dumps(config, indent=2) + "\n")


def write_tokenizer(directory: Path, tokenizer: Tokenizer) -> None:
    """Writes vocab.json, merges.txt and tokenizer_config.json."""
    with tempfile.TemporaryDirectory() as saved:
        tokenizer.save(Path(saved))
        for file in sorted(Path(saved).iterdir()):
            write_whole(directory / file.name, partial(shutil.copyfile, file))


def stored(state: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Contiguous copies in `dtype`: torch.save would write all of the memory that a view is a part of."""
    return {
        name: tensor.to("cpu", dtype).clone(memory_format=torch.contiguous_format) for name, tensor in state.items()
    }
