"""Gated linear units (arXiv:2002.05202) in the place of GPT-2's MLP. x [B, T, C] -> [B, T, C]."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import permutations

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2x.model.block import MLP
from gpt2x.parity.causes import Cause, Kind
from gpt2x.parity.mistakes.mistake import Mistake

_GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "SwiGLU": F.silu,
    "GEGLU": F.gelu,
    "GEGLU (tanh)": partial(F.gelu, approximate="tanh"),
    "ReGLU": torch.relu,
    "GLU": torch.sigmoid,
}


def gated_mlps(mlp: MLP, matrices: Sequence[Tensor]) -> Iterator[Mistake]:
    """The ways in which three matrices can be a gated linear unit without biases in the place of an MLP."""
    width = mlp.c_fc.in_features
    hidden = {size for matrix in matrices for size in matrix.shape} - {width}
    if (
        len(matrices) != 3
        or any(matrix.ndim != 2 or width not in matrix.shape for matrix in matrices)
        or len(hidden) != 1
    ):
        return
    into = [matrix if matrix.shape[1] == width else matrix.t() for matrix in matrices]  # [hidden, C]
    for (gate, up, down), (name, activation) in (
        (order, each) for order in permutations(into) for each in _GATES.items()
    ):
        forward = partial(_gated, gate=gate, up=up, down=down.t(), activation=activation)
        cause = Cause(f"{name}, a gated MLP with three matrices, instead of GPT-2's", kind=Kind.GATED_MLP)
        yield Mistake(cause, {mlp: forward}, architecture=name)


def _gated(x: Tensor, gate: Tensor, up: Tensor, down: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    return F.linear(activation(F.linear(x, gate)) * F.linear(x, up), down)
