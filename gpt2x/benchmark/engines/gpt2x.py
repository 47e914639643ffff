"""gpt2x itself."""

import time
from pathlib import Path

import torch

from gpt2x.checkpoints.load import load_checkpoint
from gpt2x.config.decode import DecodeConfig
from gpt2x.config.model import ModelConfig
from gpt2x.config.weights import WeightsConfig
from gpt2x.decoding.generate import Request, generate
from gpt2x.decoding.sampler import Pick, Sampler
from gpt2x.device import find_dtype
from gpt2x.model.kernels.capabilities import takes_int8
from gpt2x.process import fix_rounding


def dtypes() -> set[str]:
    """float16 and bfloat16 are emulated where the CPU has no instructions for them; int8 depends on torch."""
    return {"float32", "bfloat16", "float16"} | ({"int8"} if takes_int8(torch.device("cpu")) else set())


class Engine:
    """gpt2x's model and its greedy decoding."""

    lookup = False
    first_seconds = 0.0

    def __init__(self, directory: Path, dtype: str, threads: int) -> None:
        fix_rounding()  # as in the other tasks
        torch.set_num_threads(threads)
        weights = WeightsConfig(source="local", path=str(directory))
        cpu = torch.device("cpu")
        self.model = load_checkpoint(ModelConfig(name="auto"), weights, find_dtype(dtype), cpu).model

    def generate(self, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        requests = [Request(ids) for ids in prompts]
        sampler = Sampler(DecodeConfig(greedy=True, max_new_tokens=new_tokens, lookup=self.lookup), 0, eos_id=None)
        start, without = time.perf_counter(), set(range(len(prompts)))

        def note_first(request: int, pick: Pick) -> None:
            if request in without:
                without.remove(request)
                self.first_seconds = time.perf_counter() - start

        completions = dict(generate(self.model, requests, sampler, batch_size=len(requests), on_token=note_first))
        return [completions[row].ids for row in range(len(requests))]

    @torch.inference_mode()
    def margin(self, ids: list[int]) -> float:
        best, second = self.model(torch.tensor([ids]))[0, -1].float().topk(2).values.tolist()
        return float(best - second)
