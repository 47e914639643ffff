"""gpt2x itself."""

from pathlib import Path

import torch

from gpt2x.checkpoints import load_checkpoint
from gpt2x.decoding.generate import generate
from gpt2x.decoding.sampler import Sampler
from gpt2x.linear import Linear
from gpt2x.model.gpt2 import GPT2
from gpt2x.runtime import find_dtype
from gpt2x.schema import DecodeConfig, ModelConfig, WeightsConfig

_PACKED_FROM = 4  # rows


def dtypes() -> set[str]:
    return {"float32", "bfloat16", "float16"}


class Engine:
    def __init__(self, directory: Path, dtype: str, threads: int) -> None:
        torch.set_num_threads(threads)
        weights = WeightsConfig(source="local", path=str(directory))
        cpu = torch.device("cpu")
        self.model = load_checkpoint(ModelConfig(name="auto"), weights, find_dtype(dtype), cpu).model

    def generate(self, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        return _generate(self.model, prompts, new_tokens)

    @torch.inference_mode()
    def margin(self, ids: list[int]) -> float:
        best, second = self.model(torch.tensor([ids]))[0, -1].float().topk(2).values.tolist()
        return best - second


def _generate(model: GPT2, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
    if len(prompts) >= _PACKED_FROM:
        for module in model.modules():
            if isinstance(module, Linear):
                module.pack()
    greedy = Sampler(DecodeConfig(greedy=True), 0, [])
    return [completion.ids for completion in generate(model, prompts, greedy, new_tokens, eos_id=None)]
