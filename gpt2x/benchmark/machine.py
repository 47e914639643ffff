"""The machine: its description, and the least time that it needs for a step with any engine."""

import platform
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import torch
from torch.nn import functional as F

from gpt2x.model.gpt2 import GPT2
from gpt2x.model.kernels.linear import Linear

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}
_MOST_BYTES = 1 << 29  # read to measure the bandwidth: more than fits in caches
_ROWS, _WIDTH = 512, 2048  # sizes of the product that measures arithmetic: large enough for full speed
_REPEATS = 20  # the best of them counts: on a busy machine a few are undisturbed


@dataclass(frozen=True)
class Floors:
    """Lower bounds for a step: the weights are read once, and each row is multiplied with each of them."""

    bandwidth: float
    """Bytes per second, measured on as many bytes as the weights have in float32: small models stay in caches."""
    flops: float
    """Operations per second in float32; a multiplication and an addition are two."""
    n_weights: int
    """All weights but the position embeddings, of which a step reads only one row."""

    def memory_ms(self, dtype: str) -> float:
        """Milliseconds to read the weights in `dtype` once."""
        return 1e3 * _BYTES[dtype] * self.n_weights / self.bandwidth

    def arithmetic_ms(self, batch: int) -> float:
        """Milliseconds to multiply `batch` rows with the weights in float32."""
        return 1e3 * 2 * self.n_weights * batch / self.flops


@torch.inference_mode()
def measure_floors(model: GPT2) -> Floors:
    """Takes the best of a few sums of a vector, and of a few products by MKL and oneDNN: one to two seconds in all."""
    n_weights = sum(parameter.numel() for parameter in model.parameters()) - model.transformer.wpe.weight.numel()
    vector = torch.ones(min(n_weights, _MOST_BYTES // 4))
    x, linear = torch.randn(_ROWS, _WIDTH), Linear(_WIDTH, _WIDTH)
    linear.pack()
    by_mkl, by_onednn = partial(F.linear, x, linear.weight), partial(linear.forward, x)
    return Floors(
        bandwidth=4 * len(vector) / _least_seconds(vector.sum),
        flops=2 * _ROWS * _WIDTH * _WIDTH / min(_least_seconds(by_mkl), _least_seconds(by_onednn)),
        n_weights=n_weights,
    )


def _least_seconds(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(_REPEATS + 1):  # the first one warms up
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def describe_machine() -> str:
    """`AMD EPYC 7B13, cores 2, threads 2, torch 2.13.0`."""
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count()
    return f"{_cpu()}, cores {cores}, threads {torch.get_num_threads()}, torch {torch.__version__}"


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file() and (name := re.search(r"^model name\s*: (.+)$", cpuinfo.read_text(), re.MULTILINE)):
        return name[1]
    return platform.processor() or platform.machine()
