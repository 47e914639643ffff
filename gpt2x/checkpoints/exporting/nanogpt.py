"""nanoGPT's ckpt.pt (https://github.com/karpathy/nanoGPT).

Its matrices are those of nn.Linear, [out, in], and its LayerNorm has the epsilon 1e-5.
"""

from pathlib import Path

import torch

from gpt2x.checkpoints.exporting.hf import FLOATS, stored, write_tokenizer
from gpt2x.checkpoints.exporting.pt import save
from gpt2x.errors import UserError
from gpt2x.model.gpt2 import GPT2
from gpt2x.tokenizer import Tokenizer

HEAD = "lm_head.weight"


class NanoGPT:
    """ckpt.pt with `model` and `model_args`, and the tokenizer's files."""

    name = "nanogpt"
    dtypes = FLOATS
    weights = "ckpt.pt"
    note = "nanoGPT's own model.py has the exact (erf) GELU instead of GPT-2's, so that its logits differ a little"

    def stored_dtype(self, tensor: str, dtype: str) -> str:
        return dtype

    def check(self, model: GPT2, tokenizer: Tokenizer, dtype: str) -> None:
        check_epsilon(model, self.name)

    def write(self, folder: Path, model: GPT2, tokenizer: Tokenizer, dtype: str) -> None:
        config = model.config
        state = stored({name: each for name, each in model.state_dict().items() if name != HEAD}, getattr(torch, dtype))
        state[HEAD] = state["transformer.wte.weight"]  # one tensor, which torch.save stores once
        arguments = {
            "n_layer": config.n_layer,
            "n_head": config.n_head,
            "n_embd": config.n_embd,
            "block_size": config.n_positions,
            "bias": True,
            "vocab_size": config.vocab_size,
            "dropout": config.dropout,
        }
        write_tokenizer(folder, tokenizer)
        save(folder / self.weights, {"model": state, "model_args": arguments})


def check_epsilon(model: GPT2, format: str) -> None:
    """Raises UserError for a model whose LayerNorm has another epsilon than the one that the format implies."""
    epsilon = model.config.layer_norm_epsilon
    if epsilon != 1e-5:
        raise UserError(
            f"task.format={format}: the format implies layer_norm_epsilon=1e-05, and this model has {epsilon}; "
            "use task.format=hf, pt or gguf"
        )
