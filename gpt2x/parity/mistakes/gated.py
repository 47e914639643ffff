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


Linear = tuple[Tensor, Tensor | None]
"""A matrix, [out, in] or [in, out], and its bias."""


def gated_mlps(mlp: MLP, linears: Sequence[Linear]) -> Iterator[Mistake]:
    """The ways in which three of some matrices can be a gated linear unit in the place of an MLP."""
    width = mlp.c_fc.in_features
    by_hidden: dict[int, list[Linear]] = {}
    for matrix, bias in linears:
        if matrix.ndim == 2 and width in matrix.shape and matrix.numel() != width * width:
            by_hidden.setdefault(matrix.numel() // width, []).append((matrix, bias))
    for hidden, three in by_hidden.items():
        if len(three) == 3:
            into = [(matrix if matrix.shape[1] == width else matrix.t(), bias) for matrix, bias in three]  # [hidden, C]
            yield from _in_each_order(mlp, into, hidden)


def _in_each_order(mlp: MLP, into: Sequence[Linear], hidden: int) -> Iterator[Mistake]:
    for gate, up, (down, last) in permutations(into):
        sizes = [(gate[1], hidden), (up[1], hidden), (last, down.shape[1])]
        if any(bias is not None and len(bias) != size for bias, size in sizes):
            continue
        for name, activation in _GATES.items():
            forward = partial(_gated, gate=gate, up=up, down=(down.t(), last), activation=activation)
            cause = Cause(f"{name}, a gated MLP with three matrices, instead of GPT-2's", kind=Kind.GATED_MLP)
            yield Mistake(cause, {mlp: forward}, architecture=name)


def _gated(x: Tensor, gate: Linear, up: Linear, down: Linear, activation: Callable[[Tensor], Tensor]) -> Tensor:
    return F.linear(activation(F.linear(x, *gate)) * F.linear(x, *up), *down)
