"""The mistakes people make in attention: scales, masks, axes, the layout of c_attn and of heads."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from gpt2x.checkpoints.names import dtype_name
from gpt2x.model.attention import Attention
from gpt2x.parity.measures import ROUNDED, rounded

WRONG_ORDERS = {
    f"q, k and v in another order: {', '.join('qkv'[i] for i in order)}": order
    for order in permutations(range(3))
    if order != (0, 1, 2)
}


def attention_mistakes(m: Attention) -> Iterator[tuple[str, Callable]]:
    """Each mistake in words, and the forward function that makes it."""
    D = m.c_proj.in_features // m.n_head

    def wrong(cause: str, **how: Any) -> tuple[str, Callable]:
        return cause, partial(_attend, m, **how)

    yield wrong("attention scores not scaled by 1/sqrt(head width)", scale=1.0)
    yield wrong("attention scaled by width: 1/sqrt(n_embd)", scale=(D * m.n_head) ** -0.5)
    yield wrong("attention scaled by 1/head width: no square root, or the scale twice", scale=1 / D)
    yield wrong("attention multiplied by sqrt(head width)", scale=D**0.5)
    yield wrong("attention scaled by 1/sqrt(n_head)", scale=m.n_head**-0.5)
    yield wrong("causal mask missing", mask="none")
    yield wrong("causal mask off by one: a token sees the next", mask="one ahead")
    yield wrong("causal mask off by one: a token does not see itself", mask="strict")
    yield wrong("causal mask off by one: a token does not see itself", mask="strict, -inf")
    yield wrong("causal mask off by one: a token does not see itself", mask="strict, zero")
    yield wrong("causal mask inverted: a token sees only what follows", mask="inverted, zero")
    yield wrong("causal mask inverted: a token sees only what follows", mask="inverted")
    yield wrong("causal mask of ones and zeros added to the scores", mask="added")
    yield wrong("causal mask the wrong way round: a token sees only itself and what follows", mask="reversed")
    yield wrong("causal mask multiplied to the scores instead of -inf", mask="multiplied")
    yield wrong("causal mask applied after the softmax, without normalising again", mask="after")
    yield wrong("softmax over the wrong axis: queries instead of keys", axis=-2)
    yield wrong("softmax over the wrong axis: heads instead of keys", axis=1)
    yield wrong("softmax over the wrong axis: batch instead of keys", axis=0)
    for cause, order in WRONG_ORDERS.items():
        yield wrong(cause, order=order)
    yield wrong("heads interleaved: the width split as [head width, n_head]", heads="interleaved")
    yield wrong("q, k and v interleaved by head: c_attn split as [n_head, 3, head width]", heads="by head")
    yield wrong("q, k and v interleaved: c_attn split as [3 in the innermost place]", heads="innermost")
    yield wrong("heads split without a transpose", heads="no transpose")
    yield wrong("heads merged without a transpose", merge="no transpose")
    yield wrong("heads merged interleaved", merge="interleaved")
    yield "output projection left out", partial(_attend, m, project=False)
    for half in ROUNDED:
        called = dtype_name(half)
        for what in ("q, k and v", "scores", "attention weights", "heads"):
            yield wrong(f"{what} rounded to {called}", halved=(what, half))


def _attend(
    m: Attention,
    x: Tensor,
    *_: Any,
    scale: float | None = None,
    mask: str = "causal",
    axis: int = -1,
    order: tuple[int, ...] = (0, 1, 2),
    heads: str = "",
    merge: str = "",
    project: bool = True,
    halved: tuple[str, torch.dtype] = ("", torch.float32),
) -> Tensor:
    """Attention written out, x [B, T, C] -> [B, T, C], with room for one mistake."""
    B, T, C = x.shape
    H, D = m.n_head, C // m.n_head

    def to_half(what: str, y: Tensor) -> Tensor:
        return rounded(y, halved[1]) if halved[0] == what else y

    qkv = to_half("q, k and v", m.c_attn(x))  # [B, T, 3 C]
    if heads == "by head":
        parts = qkv.view(B, T, H, 3, D).permute(3, 0, 2, 1, 4)  # [3, B, H, T, D]
    elif heads == "innermost":
        parts = qkv.view(B, T, H, D, 3).permute(4, 0, 2, 1, 3)
    elif heads == "interleaved":
        parts = qkv.view(B, T, 3, D, H).permute(2, 0, 4, 1, 3)
    elif heads == "no transpose":
        parts = torch.stack([part.reshape(B, H, T, D) for part in qkv.chunk(3, -1)])
    else:
        parts = qkv.view(B, T, 3, H, D).permute(2, 0, 3, 1, 4)
    q, k, v = (parts[i] for i in order)  # [B, H, T, D]
    scores = to_half("scores", q @ k.transpose(-1, -2) * (D**-0.5 if scale is None else scale))  # [B, H, T, T]
    seen = torch.ones(T, T, dtype=torch.bool, device=x.device)
    seen = seen.tril({"one ahead": 1, "strict": -1, "strict, -inf": -1, "strict, zero": -1}.get(mask, 0))
    if mask == "reversed":
        seen = seen.t()
    if mask.startswith("inverted"):
        seen = ~seen
    if mask == "multiplied":
        scores = scores * seen
    elif mask == "added":
        scores = scores + seen
    elif mask not in ("none", "after"):
        scores = scores.masked_fill(~seen, -torch.inf if mask != "strict" else -1e9)
    weights = to_half("attention weights", scores.softmax(axis))
    if mask.endswith("zero"):  # what scaled_dot_product_attention makes of a token that sees nothing
        weights = weights.nan_to_num()
    if mask == "after":
        weights = weights * seen
    y = to_half("heads", weights @ v)  # [B, H, T, D]
    if merge == "no transpose":
        y = y.reshape(B, T, C)
    else:
        y = y.permute(0, 2, 3, 1) if merge == "interleaved" else y.transpose(1, 2)
        y = y.reshape(B, T, C)
    return m.c_proj(y) if project else y
