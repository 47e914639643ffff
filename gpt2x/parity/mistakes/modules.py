"""The mistakes people make when they write a GPT-2, each as a change to a part of our own.

They are collected from what goes wrong in ports: other activations and epsilons, the layout of c_attn,
masks, scales, the order of norms and residuals, and dtypes on the way. The list is data for diagnose.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2x.checkpoints.names import dtype_name
from gpt2x.model.attention import Attention
from gpt2x.model.block import Block
from gpt2x.model.gpt2 import Transformer
from gpt2x.parity.measures import ROUNDED, rounded
from gpt2x.parity.mistakes.attention import WRONG_ORDERS, attention_mistakes

_EPSILONS = (0.0, 1e-12, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


@dataclass(frozen=True)
class Mistake:
    """What went wrong, in words, and in our modules."""

    cause: str
    forwards: dict[nn.Module, Callable[..., Tensor]]
    """Other forward functions."""
    layers: tuple[Transformer, list[int]] | None = None
    """The blocks that run, in their order."""

    @contextmanager
    def made(self) -> Iterator[None]:
        """Inside, our modules make the mistake."""
        for module, forward in self.forwards.items():
            module.forward = forward
        if self.layers is not None:
            transformer, calls = self.layers
            h = transformer.h
            transformer.h = nn.ModuleList([h[i] for i in calls])
        try:
            yield
        finally:
            for module in self.forwards:
                del module.forward
            if self.layers is not None:
                transformer.h = h


def mistakes_in(whole: nn.Module, parts: bool = True) -> Iterator[Mistake]:
    """All single mistakes in a part of our model, and, with `parts`, in a part of that part."""
    kinds: dict[type, Callable[[Any], Iterator[tuple[str, Callable]]]] = {
        nn.GELU: _activation,
        nn.LayerNorm: _norm,
        nn.Linear: _linear,
        nn.Embedding: _embedding,
        Attention: attention_mistakes,
        Block: _block,
    }
    for name, part in whole.named_modules() if parts else [("", whole)]:
        place = f" (in {name})" if name else ""
        kind = next((kind for kind in kinds if isinstance(part, kind)), None)  # FastLinear is an nn.Linear
        if kind is not None:
            for cause, forward in kinds[kind](part):
                yield Mistake(cause + place, {part: forward})
            for half in ROUNDED:
                called = dtype_name(half)
                yield Mistake(f"output rounded to {called}{place}", {part: partial(_rounded, part.forward, half)})
                yield Mistake(f"input rounded to {called}{place}", {part: partial(_on_rounded, part.forward, half)})


def _rounded(forward: Callable[..., Tensor], half: torch.dtype, x: Tensor, *rest: Any) -> Tensor:
    return rounded(forward(x, *rest), half)


def _on_rounded(forward: Callable[..., Tensor], half: torch.dtype, x: Tensor, *rest: Any) -> Tensor:
    return forward(rounded(x, half) if x.is_floating_point() else x, *rest)


def _activation(_: nn.GELU) -> Iterator[tuple[str, Callable]]:
    yield "exact (erf) GELU instead of tanh", F.gelu
    yield "sigmoid approximation of GELU, x sigmoid(1.702 x), instead of tanh", lambda x: x * (1.702 * x).sigmoid()
    yield "ReLU instead of tanh GELU", F.relu
    yield "SiLU instead of tanh GELU", F.silu
    yield "sigmoid instead of tanh GELU", torch.sigmoid
    yield "tanh instead of tanh GELU", torch.tanh
    yield "leaky ReLU instead of tanh GELU", F.leaky_relu
    root = torch.tensor(2 / math.pi).sqrt().item()  # of float32, rounded twice
    yield "tanh GELU with a constant in float32", lambda x: _tanh_gelu(x, root)
    yield "tanh GELU with sqrt(2 / pi) in float32", lambda x: _tanh_gelu(x, torch.tensor(math.sqrt(2 / math.pi)).item())
    yield "tanh GELU with 2 / pi for sqrt(2 / pi)", partial(_tanh_gelu, root=2 / math.pi)
    for constant in (0.7978845608, 0.79788456, 0.797885, 0.79788, 0.7979, 0.798, 0.8):
        yield f"tanh GELU with {constant} for sqrt(2 / pi)", partial(_tanh_gelu, root=constant)
    for cubic in (0.0447, 0.44715, 0.4715, 0.045):
        yield f"tanh GELU with {cubic} instead of 0.044715", partial(_tanh_gelu, cubic=cubic)
    yield "no activation", lambda x: x


def _tanh_gelu(x: Tensor, root: float = math.sqrt(2 / math.pi), cubic: float = 0.044715) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(root * (x + cubic * x**3)))


def _norm(m: nn.LayerNorm) -> Iterator[tuple[str, Callable]]:
    shape, w, b = m.normalized_shape, m.weight, m.bias
    for eps in _EPSILONS:
        if eps != m.eps:
            yield f"LayerNorm eps {eps:g} instead of {m.eps:g}", partial(_layer_norm, m, eps)
    yield "norm skipped", lambda x: x
    yield (
        "LayerNorm divides by std + eps instead of sqrt(variance + eps)",
        lambda x: (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True, correction=0) + m.eps) * w + b,
    )
    yield (
        "LayerNorm with the unbiased variance (n - 1)",
        lambda x: (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + m.eps).sqrt() * w + b,
    )
    yield (
        "LayerNorm with the unbiased variance (n - 1), and std + eps",
        lambda x: (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + m.eps) * w + b,
    )
    yield (
        "RMS norm instead of LayerNorm",
        lambda x: x / (x.square().mean(-1, keepdim=True) + m.eps).sqrt() * w + b,
    )
    yield "missing bias: LayerNorm without it", lambda x: F.layer_norm(x, shape, w, None, m.eps)
    yield "missing weight: LayerNorm without it", lambda x: F.layer_norm(x, shape, None, b, m.eps)
    yield "LayerNorm without weight and bias", lambda x: F.layer_norm(x, shape, None, None, m.eps)
    yield "LayerNorm over the positions instead of the width", lambda x: _over_positions(x, m)


def _layer_norm(m: nn.LayerNorm, eps: float, x: Tensor) -> Tensor:
    return F.layer_norm(x, m.normalized_shape, m.weight, m.bias, eps)


def _over_positions(x: Tensor, m: nn.LayerNorm) -> Tensor:
    normed = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + m.eps).sqrt()
    return normed * m.weight + m.bias


def _linear(m: nn.Linear) -> Iterator[tuple[str, Callable]]:
    w, b = m.weight, m.bias
    if b is not None:
        yield "missing bias", lambda x: x @ w.t()
    if m.in_features == m.out_features:
        yield "untransposed matrix", lambda x: F.linear(x, w.t(), b)
    else:
        # A Conv1D's numbers, [in, out], read as they lie into [out, in].
        yield "matrix reshaped instead of transposed", lambda x: F.linear(x, w.t().reshape(w.shape), b)
    if m.out_features == 3 * m.in_features:  # c_attn
        for cause, order in WRONG_ORDERS.items():
            yield (
                cause,
                partial(lambda order, x: torch.cat([F.linear(x, w, b).chunk(3, -1)[i] for i in order], -1), order),
            )


def _embedding(m: nn.Embedding) -> Iterator[tuple[str, Callable]]:
    root = math.sqrt(m.embedding_dim)
    yield "embedding scaled by sqrt(n_embd)", lambda ids: F.embedding(ids, m.weight) * root
    yield "embedding divided by sqrt(n_embd)", lambda ids: F.embedding(ids, m.weight) / root
    yield "embedding left out", lambda ids: F.embedding(ids, torch.zeros_like(m.weight))


def _block(m: Block) -> Iterator[tuple[str, Callable]]:
    ln_1, attn, ln_2, mlp = m.ln_1, m.attn, m.ln_2, m.mlp

    def norm_first(x: Tensor, norm_1: Callable, norm_2: Callable) -> Tensor:
        x = x + attn(norm_1(x))
        return x + mlp(norm_2(x))

    def keep(x: Tensor) -> Tensor:
        return x

    def no_residual(x: Tensor, around_attn: bool, around_mlp: bool) -> Tensor:
        y = attn(ln_1(x)) + (x if around_attn else 0)
        return mlp(ln_2(y)) + (y if around_mlp else 0)

    def post_norm(x: Tensor) -> Tensor:
        x = ln_1(x + attn(x))
        return ln_2(x + mlp(x))

    def norm_of_branch(x: Tensor) -> Tensor:
        x = x + ln_1(attn(x))
        return x + ln_2(mlp(x))

    def residual_of_normed(x: Tensor, attn_too: bool, mlp_too: bool) -> Tensor:
        y = ln_1(x)
        x = (y if attn_too else x) + attn(y)
        y = ln_2(x)
        return (y if mlp_too else x) + mlp(y)

    def mlp_first(x: Tensor) -> Tensor:
        x = x + mlp(ln_2(x))
        return x + attn(ln_1(x))

    yield "residual left out around attention", lambda x, *_: no_residual(x, False, True)
    yield "residual left out around the MLP", lambda x, *_: no_residual(x, True, False)
    yield "residual around the MLP taken from before attention", lambda x, *_: x + mlp(ln_2(x + attn(ln_1(x))))
    yield "residuals left out around attention and the MLP", lambda x, *_: no_residual(x, False, False)
    yield "post-norm instead of pre-norm", lambda x, *_: post_norm(x)
    yield "norm after each branch instead of before it", lambda x, *_: norm_of_branch(x)
    yield "norms swapped: ln_2 before attention, ln_1 before the MLP", lambda x, *_: norm_first(x, ln_2, ln_1)
    yield "ln_1 used for both norms", lambda x, *_: norm_first(x, ln_1, ln_1)
    yield "ln_2 used for both norms", lambda x, *_: norm_first(x, ln_2, ln_2)
    yield "norm skipped: ln_1", lambda x, *_: norm_first(x, keep, ln_2)
    yield "norm skipped: ln_2", lambda x, *_: norm_first(x, ln_1, keep)
    yield "norms skipped: ln_1 and ln_2", lambda x, *_: norm_first(x, keep, keep)
    yield "residual taken after ln_1 instead of before it", lambda x, *_: residual_of_normed(x, True, False)
    yield "residual taken after ln_2 instead of before it", lambda x, *_: residual_of_normed(x, False, True)
    yield "residuals taken after the norms instead of before them", lambda x, *_: residual_of_normed(x, True, True)
    yield "attention and MLP in parallel", lambda x, *_: x + attn(ln_1(x)) + mlp(ln_2(x))
    yield "attention and MLP in parallel, both after ln_1", lambda x, *_: x + attn(ln_1(x)) + mlp(ln_1(x))
    yield "MLP before attention", lambda x, *_: mlp_first(x)
    yield "attention left out", lambda x, *_: x + mlp(ln_2(x))
    yield "MLP left out", lambda x, *_: x + attn(ln_1(x))


def wiring_mistakes(transformer: Transformer, calls: list[int], inside: bool) -> Iterator[Mistake]:
    """Mistakes between modules. `calls` are the layers that the subject runs, in its order.

    With `inside`, also those within blocks: for subjects that have no modules of which to ask it in isolation.
    """
    m, C = transformer, transformer.config.n_embd
    normed = partial(_layer_norm, m.ln_f, m.ln_f.eps)
    n = m.config.n_positions

    def embed(weight: Tensor, factor: float = 1.0) -> Callable[[Tensor], Tensor]:
        return lambda ids: F.embedding(ids, weight) * factor

    def at(move: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda positions: F.embedding(move(positions).clamp(0, n - 1), m.wpe.weight)

    if calls and calls != list(range(len(m.h))):
        ran = ", ".join(f"h.{i}" for i in calls)
        kind = "layers out of order" if sorted(calls) == list(range(len(m.h))) else "layers skipped or repeated"
        yield Mistake(f"{kind}: {ran}", {}, (m, calls))
    yield Mistake("positions shifted: they begin at 1, not at 0", {m.wpe: at(lambda p: p + 1)})
    yield Mistake("positions shifted: the first two are both 0", {m.wpe: at(lambda p: p - 1)})
    yield Mistake("positions shifted: they begin at 2 (padding_idx + 1)", {m.wpe: at(lambda p: p + 2)})
    yield Mistake("positions all 0", {m.wpe: at(lambda p: p * 0)})
    yield Mistake("positions counted from the end", {m.wpe: at(lambda p: p.flip(-1))})
    yield Mistake("position embedding left out", {m.wpe: embed(torch.zeros_like(m.wpe.weight))})
    yield Mistake("position embedding added twice", {m.wpe: embed(m.wpe.weight, 2.0)})
    yield Mistake("token embedding left out", {m.wte: embed(torch.zeros_like(m.wte.weight))})
    for factor, said in ((math.sqrt(C), "scaled by sqrt(n_embd)"), (C**-0.5, "divided by sqrt(n_embd)")):
        yield Mistake(f"embedding {said}", {m.wte: embed(m.wte.weight, factor)})
        yield Mistake(f"position embedding {said}", {m.wpe: embed(m.wpe.weight, factor)})
        both = {m.wte: embed(m.wte.weight, factor), m.wpe: embed(m.wpe.weight, factor)}
        yield Mistake(f"sum of the embeddings {said}", both)
    yield Mistake("norm skipped: ln_f", {m.ln_f: lambda x: x})
    yield Mistake("ln_f applied twice", {m.ln_f: lambda x: normed(normed(x))})
    yield Mistake("norm of the embeddings that GPT-2 has not: ln_f", {m.drop: lambda x: m.ln_f(x)})
    for half in ROUNDED:
        called = dtype_name(half)
        yield Mistake(f"embeddings rounded to {called}", {m.drop: partial(rounded, dtype=half)})
        yield Mistake(f"final hidden states rounded to {called}", {m.ln_f: partial(_rounded, m.ln_f.forward, half)})
        for i in (None, 0):
            blocks = m.h if i is None else m.h[:1]
            where = "between all layers" if i is None else "after h.0"
            yield Mistake(
                f"residual stream rounded to {called} {where}",
                {block: partial(_rounded, block.forward, half) for block in blocks},
            )
    for same in zip(*(mistakes_in(block, parts=inside) for block in m.h), strict=True):
        forwards = {module: forward for each in same for module, forward in each.forwards.items()}
        yield Mistake(same[0].cause, forwards)
