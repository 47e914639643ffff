"""Writes Hugging Face checkpoint directories, which transformers and gpt2x both load."""

import json
from pathlib import Path

import torch

from gpt2x.checkpoints.names import to_file
from gpt2x.model.gpt2 import GPT2
from gpt2x.paths import write_text, write_whole
from gpt2x.tokenizer import Tokenizer


def save_checkpoint(directory: Path, model: GPT2, tokenizer: Tokenizer, dtype: torch.dtype) -> None:
    """config.json, model.safetensors in `dtype`, vocab.json, merges.txt and tokenizer_config.json.

    model.safetensors is moved into place whole, last: a kill leaves the old one or the new one.
    """
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    config = model.config
    write_text(
        directory / "config.json",
        json.dumps(
            {
                "architectures": ["GPT2LMHeadModel"],
                "model_type": "gpt2",
                "activation_function": "gelu_new",
                "vocab_size": config.vocab_size,
                "n_positions": config.n_positions,
                "n_embd": config.n_embd,
                "n_layer": config.n_layer,
                "n_head": config.n_head,
                "layer_norm_epsilon": config.layer_norm_epsilon,
                "embd_pdrop": config.dropout,
                "attn_pdrop": config.dropout,
                "resid_pdrop": config.dropout,
                "bos_token_id": tokenizer.eos_id,
                "eos_token_id": tokenizer.eos_id,
                "tie_word_embeddings": True,
                "dtype": str(dtype).removeprefix("torch."),
            },
            indent=2,
        )
        + "\n",
    )
    tokenizer.save(directory)
    tensors = {name: tensor.to("cpu", dtype).contiguous() for name, tensor in to_file(model).items()}

    def write(temporary: Path) -> None:
        save_file(tensors, temporary, metadata={"format": "pt"})
        temporary.chmod(0o644)  # safetensors makes its files private

    write_whole(directory / "model.safetensors", write)
