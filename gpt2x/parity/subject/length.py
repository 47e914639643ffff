"""Models that accept one length only: shorter texts are filled up at their end, which earlier positions do not see."""

import torch
from torch import Tensor


def filled(x: Tensor, length: int) -> Tensor:
    """[B, T, ...] or [T] -> the same with the last position repeated, up to `length` positions."""
    axis = min(x.ndim - 1, 1)
    last = x.narrow(axis, x.shape[axis] - 1, 1)
    return torch.cat([x, *[last] * (length - x.shape[axis])], axis)


def cut(x: Tensor, T: int, length: int) -> Tensor:
    """The first T positions of a tensor [1, length, ...] or [length, ...]; a tensor of another shape as it is."""
    axis = 1 if x.ndim > 1 and x.shape[0] == 1 else 0
    return x.narrow(axis, 0, T) if x.ndim and x.shape[axis] == length else x
