"""transformers' own generate, with its default attention."""

from pathlib import Path
from typing import Any, cast

import torch
from transformers import GPT2LMHeadModel
from transformers.utils import logging


def dtypes() -> set[str]:
    """float16 and bfloat16 are emulated where the CPU has no instructions for them."""
    return {"float32", "bfloat16", "float16"}


class Engine:
    """GPT2LMHeadModel, without an end-of-text token."""

    def __init__(self, directory: Path, dtype: str, threads: int) -> None:
        logging.disable_progress_bar()
        torch.set_num_threads(threads)
        model = GPT2LMHeadModel.from_pretrained(directory, dtype=getattr(torch, dtype), local_files_only=True)
        self.model = model.eval().requires_grad_(False)
        # It is a GenerationConfig for every model that can generate; the declared type is wider.
        cast(Any, self.model.generation_config).eos_token_id = None

    def generate(self, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        ids = torch.tensor(prompts)  # [B, T]
        output: Any = self.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new_tokens, pad_token_id=0
        )
        new: list[list[int]] = output[:, ids.shape[1] :].tolist()
        return new

    @torch.inference_mode()
    def margin(self, ids: list[int]) -> float:
        best, second = self.model(torch.tensor([ids])).logits[0, -1].float().topk(2).values.tolist()
        return float(best - second)
