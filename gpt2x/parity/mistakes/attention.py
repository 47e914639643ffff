"""Mistakes in attention: scales, masks, axes, the layout of c_attn and of heads.

Shapes: B batch, T tokens, C n_embd, H n_head, D = C / H.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gpt2x.checkpoints.names import dtype_name
from gpt2x.model.attention import Attention
from gpt2x.parity.causes import Cause, Kind
from gpt2x.parity.measures import ROUNDED, rounded
from gpt2x.parity.mistakes.linear import REUSED, WRONG_ORDERS
from gpt2x.parity.mistakes.mistake import Mistake, WrongForward

Change = Callable[[Tensor], Tensor]


def _unchanged(x: Tensor) -> Tensor:
    return x


def _seen(scores: Tensor, diagonal: int = 0) -> Tensor:
    """[T, T]: True where a query (row) sees a key (column), up to its own position plus `diagonal`."""
    T = scores.shape[-1]
    return torch.ones(T, T, dtype=torch.bool, device=scores.device).tril(diagonal)


def _causal(scores: Tensor, diagonal: int = 0, fill: float = -torch.inf) -> Tensor:
    return scores.masked_fill(~_seen(scores, diagonal), fill)


def _inverted(scores: Tensor, fill: float = -torch.inf) -> Tensor:
    return scores.masked_fill(_seen(scores), fill)


def _reversed(scores: Tensor) -> Tensor:
    return scores.masked_fill(~_seen(scores).t(), -torch.inf)


def _with_alibi(scores: Tensor) -> Tensor:
    """ALiBi (arXiv:2108.12409): minus the distance, times 2 ** (-8 / H), 2 ** (-16 / H), ... for the heads."""
    H, T = scores.shape[1], scores.shape[-1]
    slopes = 2.0 ** (-8 * torch.arange(1, H + 1, dtype=scores.dtype) / H)
    places = torch.arange(T, dtype=scores.dtype)
    return scores + slopes[:, None, None] * (places[None, :] - places[:, None])


def _rotated(x: Tensor, by_halves: bool, backwards: bool = False) -> Tensor:
    """RoPE (arXiv:2104.09864), base 10000: turns pairs of x [B, H, T, D] by angles that grow with the position.

    A pair is a number of the first half and one of the second, or two neighbours. Some turn it backwards.
    """
    T, D = x.shape[-2:]
    speeds = 10000.0 ** (-torch.arange(0, D, 2, dtype=x.dtype) / D)
    angles = torch.arange(T, dtype=x.dtype)[:, None] * (-speeds if backwards else speeds)  # [T, D / 2]
    a, b = x.chunk(2, -1) if by_halves else (x[..., 0::2], x[..., 1::2])
    turned = a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()
    return torch.cat(turned, -1) if by_halves else torch.stack(turned, -1).flatten(-2)


def _split(qkv: Tensor, H: int) -> Tensor:
    """[B, T, 3 C] -> q, k and v, [3, B, H, T, D]."""
    B, T, _ = qkv.shape
    return qkv.view(B, T, 3, H, -1).permute(2, 0, 3, 1, 4)


def _split_heads_innermost(qkv: Tensor, H: int) -> Tensor:
    B, T, _ = qkv.shape
    return qkv.view(B, T, 3, -1, H).permute(2, 0, 4, 1, 3)


def _split_by_head(qkv: Tensor, H: int) -> Tensor:
    B, T, _ = qkv.shape
    return qkv.view(B, T, H, 3, -1).permute(3, 0, 2, 1, 4)


def _split_qkv_innermost(qkv: Tensor, H: int) -> Tensor:
    B, T, C3 = qkv.shape
    return qkv.view(B, T, H, C3 // (3 * H), 3).permute(4, 0, 2, 1, 3)


def _split_without_transpose(qkv: Tensor, H: int) -> Tensor:
    B, T, _ = qkv.shape
    return torch.stack([part.reshape(B, H, T, -1) for part in qkv.chunk(3, -1)])


def _split_into_one(qkv: Tensor, _: int) -> Tensor:
    return _split(qkv, 1)


def _merge(y: Tensor) -> Tensor:
    """[B, H, T, D] -> [B, T, H, D]."""
    return y.transpose(1, 2)


def _merge_interleaved(y: Tensor) -> Tensor:
    return y.permute(0, 2, 3, 1)


def _merge_positions_innermost(y: Tensor) -> Tensor:
    return y.transpose(2, 3)


def _attend(
    m: Attention,
    x: Tensor,
    *_: Any,
    split: Callable[[Tensor, int], Tensor] = _split,
    order: tuple[int, ...] = (0, 1, 2),
    scale: Callable[[int, int], float] = lambda H, D: D**-0.5,
    mask: Change = _causal,
    axis: int = -1,
    merge: Change = _merge,
    project: bool = True,
    change_qkv: Change = _unchanged,
    turn: Change = _unchanged,
    change_scores: Change = _unchanged,
    change_weights: Change = _unchanged,
    change_heads: Change = _unchanged,
) -> Tensor:
    """Attention written out in steps, x [B, T, C] -> [B, T, C]; a mistake replaces one or two of them."""
    B, T, C = x.shape
    parts = split(change_qkv(m.c_attn(x)), m.n_head)  # [3, B, H, T, D]
    q, k, v = (parts[i] for i in order)  # [B, H, T, D]
    H, D = q.shape[1], q.shape[-1]
    scores = mask(change_scores(turn(q) @ turn(k).transpose(-1, -2) * scale(H, D)))  # [B, H, T, T]
    weights = change_weights(scores.softmax(axis))
    y = merge(change_heads(weights @ v)).reshape(B, T, C)
    return m.c_proj(y) if project else y


def with_other_qkv(attention: Attention, change: Change, cause: Cause, architecture: str) -> Mistake:
    """The mistake in which c_attn's output [B, T, 3 C] is changed before it is split into heads."""
    return Mistake(cause, {attention: partial(_attend, attention, change_qkv=change)}, architecture=architecture)


def _wrong(
    kind: Kind, text: str, *, numbers: tuple[float, ...] = (), rounds: bool = False, **steps: Any
) -> WrongForward[Attention]:
    return WrongForward(Cause(text, kind=kind, numbers=numbers), partial(_attend, **steps), rounds=rounds)


def _turned(how: str, by_halves: bool, backwards: bool = False) -> WrongForward[Attention]:
    return WrongForward(
        Cause(f"rotary positions (RoPE) {how}, which GPT-2 has not", kind=Kind.ROTATION),
        partial(_attend, turn=partial(_rotated, by_halves=by_halves, backwards=backwards)),
        applies=lambda m: m.c_proj.in_features // m.n_head % 2 == 0,
        architecture="RoPE",
    )


def _rounded_steps(half: torch.dtype) -> tuple[WrongForward[Attention], ...]:
    to_half = partial(rounded, dtype=half)
    steps: dict[str, dict[str, Any]] = {
        "q, k and v": {"change_qkv": to_half},
        "scores": {"change_scores": to_half},
        "attention weights": {"change_weights": to_half},
        "heads": {"change_heads": to_half},
    }
    return tuple(
        _wrong(Kind.ROUNDING, f"{what} rounded to {dtype_name(half)}", rounds=True, **step)
        for what, step in steps.items()
    )


_STRICT = "causal mask off by one: a token does not see itself"
_INVERTED = "causal mask inverted: a token sees only what follows"

IN_ATTENTION: tuple[WrongForward[Attention], ...] = (
    _wrong(Kind.SCALE, "attention scores not scaled by 1/sqrt(head width)", scale=lambda H, D: 1.0),
    _wrong(Kind.SCALE, "attention scaled by width: 1/sqrt(n_embd)", scale=lambda H, D: (D * H) ** -0.5),
    _wrong(
        Kind.SCALE, "attention scaled by 1/head width: no square root, or the scale twice", scale=lambda H, D: 1 / D
    ),
    _wrong(Kind.SCALE, "attention multiplied by sqrt(head width)", scale=lambda H, D: D**0.5),
    _wrong(Kind.SCALE, "attention scaled by 1/sqrt(n_head)", scale=lambda H, D: H**-0.5),
    _wrong(Kind.SCALE, "attention scaled by 1/n_head", scale=lambda H, D: 1 / H),
    _wrong(Kind.SCALE, "attention scaled by 1/n_embd", scale=lambda H, D: 1 / (D * H)),
    _wrong(Kind.SCALE, "attention multiplied by sqrt(n_embd)", scale=lambda H, D: (D * H) ** 0.5),
    _wrong(Kind.MASK_MISSING, "causal mask missing", mask=_unchanged),
    _wrong(Kind.MASK_FILL, "causal mask filled with -1e-9 instead of -inf", mask=partial(_causal, fill=-1e-9)),
    _wrong(Kind.MASK_FILL, "causal mask filled with 1e-9 instead of -inf", mask=partial(_causal, fill=1e-9)),
    _wrong(Kind.MASK_DIAGONAL, "causal mask off by one: a token sees the next", mask=partial(_causal, diagonal=1)),
    # The first token then sees nothing. What comes of that depends on the fill value and on the implementation:
    # scaled_dot_product_attention gives zeros, a written-out softmax over -inf gives NaN.
    _wrong(Kind.MASK_DIAGONAL, _STRICT, mask=partial(_causal, diagonal=-1, fill=-1e9)),
    _wrong(Kind.MASK_DIAGONAL, _STRICT, mask=partial(_causal, diagonal=-1)),
    _wrong(Kind.MASK_DIAGONAL, _STRICT, mask=partial(_causal, diagonal=-1), change_weights=torch.nan_to_num),
    _wrong(Kind.MASK_SIDE, _INVERTED, mask=_inverted, change_weights=torch.nan_to_num),
    _wrong(Kind.MASK_SIDE, _INVERTED, mask=_inverted),
    *(
        _wrong(
            Kind.MASK_SIDE,
            f"{_INVERTED}, and the rest is filled with {text} instead of -inf",
            mask=partial(_inverted, fill=fill),
        )
        for text, fill in {"0": 0.0, "-1e-9": -1e-9, "1e-9": 1e-9, "-1e9": -1e9}.items()
    ),
    _wrong(
        Kind.MASK_USE, "causal mask of ones and zeros added to the scores", mask=lambda scores: scores + _seen(scores)
    ),
    _wrong(
        Kind.MASK_SIDE, "causal mask the wrong way round: a token sees only itself and what follows", mask=_reversed
    ),
    _wrong(
        Kind.MASK_USE,
        "causal mask multiplied to the scores instead of -inf",
        mask=lambda scores: scores * _seen(scores),
    ),
    _wrong(
        Kind.MASK_USE,
        "causal mask applied after the softmax, without normalising again",
        mask=_unchanged,
        change_weights=lambda weights: weights * _seen(weights),
    ),
    _wrong(Kind.SOFTMAX_AXIS, "softmax over the wrong axis: queries instead of keys", axis=-2),
    _wrong(Kind.SOFTMAX_AXIS, "softmax over the wrong axis: heads instead of keys", axis=1),
    _wrong(Kind.SOFTMAX_AXIS, "softmax over the wrong axis: batch instead of keys", axis=0),
    *(_wrong(Kind.QKV_ORDER, text, numbers=order, order=order) for text, order in WRONG_ORDERS.items()),
    *(_wrong(Kind.PROJECTION, text, order=order) for text, order in REUSED.items()),
    _wrong(Kind.QKV_LAYOUT, "heads interleaved: the width split as [head width, n_head]", split=_split_heads_innermost),
    _wrong(
        Kind.QKV_LAYOUT, "q, k and v interleaved by head: c_attn split as [n_head, 3, head width]", split=_split_by_head
    ),
    _wrong(
        Kind.QKV_LAYOUT,
        "q, k and v interleaved: c_attn split as [3 in the innermost place]",
        split=_split_qkv_innermost,
    ),
    _wrong(Kind.QKV_LAYOUT, "heads split without a transpose", split=_split_without_transpose),
    _wrong(Kind.HEADS_MERGED, "heads merged without a transpose", merge=_unchanged),
    _wrong(
        Kind.QKV_LAYOUT, "heads split and merged without a transpose", split=_split_without_transpose, merge=_unchanged
    ),
    _wrong(Kind.QKV_LAYOUT, "heads merged interleaved", merge=_merge_interleaved),
    _wrong(Kind.QKV_LAYOUT, "one head of the whole width instead of n_head", split=_split_into_one),
    _wrong(
        Kind.QKV_LAYOUT,
        "heads merged with the positions in the innermost place",
        merge=_merge_positions_innermost,
    ),
    _wrong(Kind.PROJECTION, "output projection left out", project=False),
    _turned("by halves", by_halves=True),
    _turned("by neighbours", by_halves=False),
    _turned("by halves and backwards", by_halves=True, backwards=True),
    _turned("by neighbours and backwards", by_halves=False, backwards=True),
    WrongForward(
        Cause("ALiBi, which GPT-2 has not: scores less the distance", kind=Kind.ROTATION),
        partial(_attend, change_scores=_with_alibi),
        architecture="ALiBi",
    ),
    *(mistake for half in ROUNDED for mistake in _rounded_steps(half)),
)
