"""Parts of other architectures between c_attn and the heads: grouped keys and values, and norms of queries and keys.

Shapes: B batch, T tokens, C n_embd, H n_head, D = C / H.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import permutations, product

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2x.model.attention import Attention
from gpt2x.parity.causes import Cause, Kind
from gpt2x.parity.mistakes.attention import with_other_qkv
from gpt2x.parity.mistakes.gated import Linear
from gpt2x.parity.mistakes.mistake import Mistake

_EPSILONS = (1e-5, 1e-6, 1e-8, torch.finfo(torch.float64).eps, 0.0)


def grouped_queries(attention: Attention, linears: Sequence[Linear]) -> Iterator[Mistake]:
    """The ways in which two of some matrices [in, out] or [out, in] can make fewer keys and values than queries.

    arXiv:2305.13245; with one key for all queries, arXiv:1911.02150.
    """
    C, H = attention.c_attn.in_features, attention.n_head
    few = [(matrix, bias) for matrix, bias in linears if C in matrix.shape and matrix.numel() < C * C]
    sizes = {matrix.numel() // C for matrix, _ in few}
    size = sizes.pop() if len(sizes) == 1 and len(few) == 2 else 0
    groups = size * H // C
    if not groups or size * H % C or H % groups:
        return
    into = [(matrix if matrix.shape[1] == C else matrix.t(), bias) for matrix, bias in few]  # [size, C]
    for key, value in permutations(into):
        for each_repeated, how in ((True, ""), (False, ", in turn")):
            forward = partial(_grouped, attention, key=key, value=value, groups=groups, each_repeated=each_repeated)
            text = f"queries of {H} heads share the keys and values of {groups} (GQA){how}, which GPT-2 has not"
            yield Mistake(Cause(text, kind=Kind.GROUPED_QUERIES), {attention.c_attn: forward}, architecture="GQA")


def _grouped(
    attention: Attention, x: Tensor, *, key: Linear, value: Linear, groups: int, each_repeated: bool
) -> Tensor:
    """c_attn: x [B, T, C] -> [B, T, 3 C], where heads of keys and values are repeated."""
    H, C = attention.n_head, attention.c_attn.in_features
    c_attn = attention.c_attn
    q = F.linear(x, c_attn.weight[:C], None if c_attn.bias is None else c_attn.bias[:C])

    def repeated(y: Tensor) -> Tensor:
        heads = y.unflatten(-1, (groups, -1))  # [B, T, groups, D]
        n = H // groups
        heads = heads.repeat_interleave(n, dim=-2) if each_repeated else heads.repeat(1, 1, n, 1)
        return heads.flatten(-2)

    return torch.cat([q, repeated(F.linear(x, *key)), repeated(F.linear(x, *value))], -1)


def normed_queries(attention: Attention, scales: Sequence[Tensor]) -> Iterator[Mistake]:
    """The ways in which queries and keys can be normalised before their product (arXiv:2010.04245).

    `scales` are the two vectors by which they are multiplied, in either order; none if they are not.
    """
    C, H = attention.c_attn.in_features, attention.n_head
    widths = {len(scale) for scale in scales} or {C // H}
    if len(scales) not in (0, 2) or len(widths) != 1 or not widths <= {C // H, C}:
        return
    width = widths.pop()
    of_what = "each head" if width < C else "all heads"
    for (kind, norm), eps, pair in product(_NORMS.items(), _EPSILONS, list(permutations(scales)) or [()]):
        change = partial(_normed, norm=norm, eps=eps, width=width, scales=pair)
        text = f"queries and keys normalised ({kind} of {of_what}, eps {eps:.3g}), which GPT-2 has not"
        yield with_other_qkv(attention, change, Cause(text, kind=Kind.NORMED_QUERIES), "QK norm")


def _root_mean_square(x: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


def _layer_norm(x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=eps)


_NORMS: dict[str, Callable[[Tensor, float], Tensor]] = {"RMS": _root_mean_square, "LayerNorm": _layer_norm}


def _normed(
    qkv: Tensor, *, norm: Callable[[Tensor, float], Tensor], eps: float, width: int, scales: tuple[Tensor, ...]
) -> Tensor:
    q, k, v = qkv.chunk(3, -1)
    parts = [norm(part.unflatten(-1, (-1, width)), eps) for part in (q, k)]  # [B, T, H or 1, width]
    parts = [part * scale for part, scale in zip(parts, scales, strict=True)] if scales else parts
    return torch.cat([*(part.flatten(-2) for part in parts), v], -1)
