"""The machine: its description, and the least time that it needs for a step with any engine."""

import platform
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2x.model.gpt2 import GPT2
from gpt2x.model.kernels.linear import FastLinear

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}
_MOST_BYTES = 1 << 29  # of the matrices that measure the bandwidth: more than fits in caches
_ROWS, _WIDTH = 512, 2048  # sizes of the product that measures arithmetic: large enough for full speed
_REPEATS = 20  # the best of them counts: on a busy machine a few are undisturbed


@dataclass(frozen=True)
class Floors:
    """Lower bounds for a step: the weights are read once, and each row is multiplied with each of them."""

    bandwidth: float
    """Bytes per second at which float32 matrices of the model's shapes are read, while a row of ones multiplies them.

    The matrices of small models stay in caches, there as in generation.
    """
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
    """Takes the fastest of a few passes per measurement: one to three seconds in all.

    Bandwidth: a pass multiplies one row of ones with each matrix of the model once, in new buffers of float32 and in
    the model's order, so that it reads memory as a step does. Three operators of torch take turns, and the fastest
    counts: on CPUs of AMD, torch's products read at half the speed of its sums. Of a model that is larger than
    _MOST_BYTES, the matrices that fit into it are read. Arithmetic: products of many rows by MKL and by oneDNN.
    """
    n_weights = sum(parameter.numel() for parameter in model.parameters()) - model.transformer.wpe.weight.numel()
    matrices = _matrices(model)
    n_read = sum(4 * matrix.numel() for matrix in matrices)
    rows = {matrix.shape[1]: torch.ones(1, matrix.shape[1]) for matrix in matrices}

    def multiply_by(product: Callable[[Tensor, Tensor], Tensor]) -> None:
        for matrix in matrices:
            product(rows[matrix.shape[1]], matrix)

    x, linear = torch.randn(_ROWS, _WIDTH), FastLinear(_WIDTH, _WIDTH).requires_grad_(False)
    linear.pack()
    products = partial(F.linear, x, linear.weight), partial(linear.forward, x)
    readers = [partial(multiply_by, product) for product in (F.linear, _by_vector, _by_sum)]
    return Floors(
        bandwidth=n_read / _least_seconds(*readers),
        flops=2 * _ROWS * _WIDTH * _WIDTH / _least_seconds(*products),
        n_weights=n_weights,
    )


def _matrices(model: GPT2) -> list[Tensor]:
    """New matrices of the shapes that a step multiplies with, of at most _MOST_BYTES together, but at least one."""
    shapes = [linear.weight.shape for linear in model.modules() if isinstance(linear, nn.Linear)]
    sizes = accumulate(4 * shape.numel() for shape in shapes)
    return [torch.ones(shape) for shape, size in zip(shapes, sizes, strict=True) if size <= _MOST_BYTES] or [
        torch.ones(shapes[0])
    ]


def _by_vector(row: Tensor, matrix: Tensor) -> Tensor:
    """The same product by another operator."""
    return torch.mv(matrix, row[0])


def _by_sum(row: Tensor, matrix: Tensor) -> Tensor:
    """The same product, as the row holds ones."""
    return matrix.sum(-1)


def _least_seconds(*works: Callable[[], object]) -> float:
    """The time of the fastest of them. They take turns; the first turn warms up."""
    seconds = []
    for _ in range(_REPEATS + 1):
        for work in works:
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
    return min(seconds[len(works) :])


def describe_machine() -> str:
    """`AMD EPYC 7B13, cores 2, threads 2, torch 2.13.0`."""
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count()
    return f"{_cpu()}, cores {cores}, threads {torch.get_num_threads()}, torch {torch.__version__}"


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file() and (name := re.search(r"^model name\s*: (.+)$", cpuinfo.read_text(), re.MULTILINE)):
        return name[1]
    return platform.processor() or platform.machine()
