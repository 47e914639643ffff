"""Writes Hugging Face checkpoint directories, which both transformers and gpt2x load."""

import json
import shutil
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from gpt2x.checkpoints.names import dtype_name, to_file
from gpt2x.errors import UserError
from gpt2x.model.gpt2 import GPT2
from gpt2x.paths import shown, write_text, write_whole
from gpt2x.tokenizer import Tokenizer


def save_checkpoint(directory: Path, model: GPT2, tokenizer: Tokenizer, dtype: torch.dtype) -> None:
    """Writes config.json, vocab.json, merges.txt, tokenizer_config.json, and model.safetensors in `dtype`.

    Each file is moved into place whole, model.safetensors last, so that a killed process leaves the old weights or
    the new ones. Raises UserError if a file cannot be written, or the folder above does not exist.
    """
    from safetensors.torch import save_file

    try:
        directory.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {shown(directory)}: {error.strerror}") from None
    architecture = asdict(model.config)
    dropout = architecture.pop("dropout")  # gpt2x's own name; the others are those of Hugging Face
    write_text(
        directory / "config.json",
        json.dumps(
            {
                "architectures": ["GPT2LMHeadModel"],
                "model_type": "gpt2",
                "activation_function": "gelu_new",
                **architecture,
                **dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), dropout),
                "bos_token_id": tokenizer.eos_id,
                "eos_token_id": tokenizer.eos_id,
                "tie_word_embeddings": True,
                "dtype": dtype_name(dtype),
            },
            indent=2,
        )
        + "\n",
    )
    with tempfile.TemporaryDirectory() as saved:
        tokenizer.save(Path(saved))
        for file in sorted(Path(saved).iterdir()):
            write_whole(directory / file.name, partial(shutil.copyfile, file))
    tensors = {name: tensor.to("cpu", dtype).contiguous() for name, tensor in to_file(model).items()}
    write_whole(directory / "model.safetensors", partial(save_file, tensors, metadata={"format": "pt"}))
