"""The activation whose last digits do not depend on the number of threads."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# From GeluKernelImpl and GeluBackwardKernelImpl of torch (aten/src/ATen/native/cpu/Activation.cpp).
_ALONE = 16384  # so many numbers, or fewer, are the work of one thread
_GRAIN = 32768  # numbers for each thread in the backward pass, at least
_BLOCK = 64  # numbers that are computed at a time; in bfloat16, where they are most


class SteadyGELU(nn.GELU):
    """An nn.GELU that gives each thread a whole number of blocks.

    torch gives each thread the same number of numbers. Those that do not fill a block at the end of a thread's share
    are computed in another way, and may have another last digit.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x [..., C] -> [..., C]."""
        if x.numel() <= _ALONE or x.device.type != "cpu":
            return super().forward(x)
        parts = list(_parts(x.numel(), torch.get_num_threads()))
        if len(parts) == 1:
            return super().forward(x)
        return torch.cat([F.gelu(part, approximate=self.approximate) for part in x.flatten().split(parts)]).view(
            x.shape
        )


def _parts(n: int, threads: int) -> Iterator[int]:
    """The sizes of parts of n numbers: each is whole blocks for every thread that takes part, or for one thread."""
    step = _BLOCK * threads
    while n > _ALONE:
        whole = range(n // step * step, 0, -step)
        part = next((part for part in whole if part % (_BLOCK * min(threads, -(-part // _GRAIN))) == 0), n)
        yield part
        n -= part
    if n:
        yield n
