"""Mistakes in linear layers: no bias, and other layouts of the weight, which is [out, in]."""

from collections.abc import Callable
from functools import partial
from itertools import permutations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2x.parity.causes import Cause, Kind
from gpt2x.parity.mistakes.mistake import WrongForward

WRONG_ORDERS = {
    f"q, k and v in another order: {', '.join('qkv'[i] for i in order)}": order
    for order in permutations(range(3))
    if order != (0, 1, 2)
}
"""Text of the cause -> the order in which c_attn's thirds are taken."""
REUSED = {
    f"projection of {used} used for {other} as well": tuple(
        "qkv".index(used if each == other else each) for each in "qkv"
    )
    for other, used in permutations("qkv", 2)
}
"""Text of the cause -> which of c_attn's thirds are taken, one of them twice."""


def _is_square(m: nn.Linear) -> bool:
    return m.in_features == m.out_features


def _is_c_attn(m: nn.Linear) -> bool:
    return m.out_features == 3 * m.in_features


def _own(weight: Tensor) -> Tensor:
    return weight


# The numbers of a Conv1D weight, [in, out], read in their order in memory as [out, in].
def _reshaped(weight: Tensor) -> Tensor:
    return weight.t().reshape(weight.shape)


def _multiply(
    m: nn.Linear,
    x: Tensor,
    change: Callable[[Tensor], Tensor] = _own,
    with_bias: bool = True,
    order: tuple[int, ...] | None = None,
) -> Tensor:
    """A linear layer in steps; a mistake replaces one of them. `order` is that of the thirds of c_attn's output."""
    y = F.linear(x, change(m.weight), m.bias if with_bias else None)
    if order is None:
        return y
    thirds = y.chunk(3, -1)
    return torch.cat([thirds[i] for i in order], -1)


WITHOUT_BIAS: WrongForward[nn.Linear] = WrongForward(
    Cause("missing bias", kind=Kind.BIAS), partial(_multiply, with_bias=False), applies=lambda m: m.bias is not None
)

IN_LINEAR: tuple[WrongForward[nn.Linear], ...] = (
    WITHOUT_BIAS,
    WrongForward(
        Cause("untransposed matrix", kind=Kind.MATRIX_LAYOUT), partial(_multiply, change=torch.t), applies=_is_square
    ),
    WrongForward(
        Cause("matrix reshaped instead of transposed", kind=Kind.MATRIX_LAYOUT),
        partial(_multiply, change=_reshaped),
        applies=lambda m: not _is_square(m),
    ),
    *(
        WrongForward(
            Cause(text, kind=Kind.QKV_ORDER, numbers=order), partial(_multiply, order=order), applies=_is_c_attn
        )
        for text, order in WRONG_ORDERS.items()
    ),
)
