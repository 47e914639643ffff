"""transformers' own generate, with its default attention."""

from pathlib import Path

import torch
from transformers import GPT2LMHeadModel
from transformers.utils import logging


def dtypes() -> set[str]:
    return {"float32", "bfloat16", "float16"}


class Engine:
    def __init__(self, directory: Path, dtype: str, threads: int) -> None:
        logging.disable_progress_bar()
        torch.set_num_threads(threads)
        model = GPT2LMHeadModel.from_pretrained(directory, dtype=getattr(torch, dtype), local_files_only=True)
        self.model = model.eval().requires_grad_(False)
        self.model.generation_config.eos_token_id = None

    def generate(self, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        ids = torch.tensor(prompts)  # [B, T]
        output = self.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new_tokens, pad_token_id=0
        )
        return output[:, ids.shape[1] :].tolist()

    @torch.inference_mode()
    def margin(self, ids: list[int]) -> float:
        best, second = self.model(torch.tensor([ids])).logits[0, -1].float().topk(2).values.tolist()
        return best - second
