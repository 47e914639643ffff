"""Mistakes in linear layers: no bias, and other layouts of the weight, which is [out, in]."""

from functools import partial
from itertools import permutations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2x.parity.mistakes.mistake import WrongForward

WRONG_ORDERS = {
    f"q, k and v in another order: {', '.join('qkv'[i] for i in order)}": order
    for order in permutations(range(3))
    if order != (0, 1, 2)
}
"""Cause -> the order in which c_attn's thirds are taken."""


def _is_square(m: nn.Linear) -> bool:
    return m.in_features == m.out_features


def _is_c_attn(m: nn.Linear) -> bool:
    return m.out_features == 3 * m.in_features


def _reordered(m: nn.Linear, x: Tensor, order: tuple[int, ...]) -> Tensor:
    thirds = F.linear(x, m.weight, m.bias).chunk(3, -1)
    return torch.cat([thirds[i] for i in order], -1)


IN_LINEAR: tuple[WrongForward[nn.Linear], ...] = (
    WrongForward("missing bias", lambda m, x: x @ m.weight.t(), applies=lambda m: m.bias is not None),
    WrongForward("untransposed matrix", lambda m, x: F.linear(x, m.weight.t(), m.bias), applies=_is_square),
    # The numbers of a Conv1D weight, [in, out], read in their order in memory as [out, in].
    WrongForward(
        "matrix reshaped instead of transposed",
        lambda m, x: F.linear(x, m.weight.t().reshape(m.weight.shape), m.bias),
        applies=lambda m: not _is_square(m),
    ),
    *(
        WrongForward(cause, partial(_reordered, order=order), applies=_is_c_attn)
        for cause, order in WRONG_ORDERS.items()
    ),
)
