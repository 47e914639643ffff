"""GPT-2s with several mistakes at once, made of those in plain.py."""

import math
from collections.abc import Callable
from types import MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.subjects import plain
from tests.subjects.plain import GPT2, MLP, Activation, Block, Norm, mistake, several


def no_fc_bias(a: Any, model: GPT2) -> GPT2:
    for block in model.h:
        block.mlp.c_fc.bias = None
    return model


class Three(nn.Module):
    """c_attn as three projections."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width, bias=name != "q") for name in "qkv")

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.q(x), self.k(x), self.v(x)], -1)


def no_query_bias(a: Any, model: GPT2) -> GPT2:
    """Three projections, of which one has no bias."""
    for block in model.h:
        width = block.attn.c_attn.in_features
        block.attn.c_attn = Three(width)
        block.attn.c_attn.in_features = width
    return model


def silu_nearly(layers: list[int] | None = None) -> Callable[..., GPT2]:
    """An activation that no list of mistakes has."""
    return mistake(Activation, layers, forward=lambda m, x: F.silu(x) + 0.02 * x)


def erf(layers: list[int]) -> Callable[..., GPT2]:
    return mistake(Activation, layers, forward=lambda m, x: F.gelu(x))


def own_with(name: str, *makes: Callable[..., GPT2]) -> Callable[[Any], GPT2]:
    """A model that loads its weights wrongly, and makes other mistakes besides."""

    def make(a: Any) -> GPT2:
        model = getattr(plain, name)(a)
        for each in makes:
            each(a, model)
        return model

    return make


def in_one_piece(m: MLP, x: Tensor) -> Tensor:
    """An MLP that calls none of its modules, with the exact GELU and without the first bias."""
    return F.gelu(x @ m.c_fc.weight.t()) @ m.c_proj.weight.t() + m.c_proj.bias


def halved(m: Block, x: Tensor) -> Tensor:
    """A block for an MLP that makes twice what GPT-2's makes."""
    x = x + m.attn(m.ln_1(x))
    return x + m.mlp(m.ln_2(x)) / 2


def rounded_once(m: GPT2, ids: Tensor) -> Tensor:
    """A GPT-2 that rounds the residual stream after the first block only."""
    x = m.drop(m.embed(ids, m.positions(ids)))
    for i, block in enumerate(m.blocks()):
        x = block(x) if i else plain.half(block(x), torch.float16)
    return m.head(m.norm(x))


def rms_plus_eps(a: Any, model: GPT2) -> GPT2:
    """RMS norms whose eps is outside the root, and that have no bias."""
    for norm in [part for part in model.modules() if isinstance(part, Norm)]:
        norm.bias = None
    return mistake(Norm, forward=lambda m, x: x / (x.square().mean(-1, True).sqrt() + 1e-8) * m.weight)(a, model)


def empty_blocks(a: Any, model: GPT2) -> GPT2:
    model.h = nn.ModuleList(nn.Identity() for _ in model.h)
    return model


class Reshaped(nn.Module):
    """Attention of bare matrices without biases, with heads by reshaping, that adds what it is given."""

    def __init__(self, width: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.Wq, self.Wk, self.Wv, self.Wo = (nn.Parameter(torch.zeros(width, width)) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        q, k, v = ((x @ w).reshape(B, self.n_head, T, -1) for w in (self.Wq, self.Wk, self.Wv))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + y.reshape(B, T, C) @ self.Wo


class Bare(nn.Module):
    """Attention of bare matrices, which are used as nn.Linear does not."""

    def __init__(self, width: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        for name in "qkvo":
            setattr(self, f"W{name}", nn.Parameter(torch.zeros(width, width)))
            setattr(self, f"b{name}", nn.Parameter(torch.zeros(width)))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            (torch.einsum("btc,cd->btd", x, w) + b).unflatten(-1, (self.n_head, -1)).transpose(1, 2)
            for w, b in ((self.Wq, self.bq), (self.Wk, self.bk), (self.Wv, self.bv))
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        return y @ self.Wo + self.bo


def bare_matrices(a: Any) -> GPT2:
    """A correct model, with both layouts."""
    model = GPT2(a)
    for block in model.h:
        block.attn = Bare(a.n_embd, a.n_head)
    return model


class SwiGLU(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate, self.up = (nn.Linear(width, 96, bias=False) for _ in range(2))
        self.down = nn.Linear(96, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


def gated(a: Any, model: GPT2) -> GPT2:
    for block in model.h:
        block.mlp = SwiGLU(a.n_embd)
    return model


class AddsPositions(nn.Module):
    """Called wpe, but given embeddings, to which it adds a table that numpy has computed in float32."""

    def __init__(self, a: Any) -> None:
        super().__init__()
        even = np.arange(0, a.n_embd, 2, dtype=np.float32)
        angles = np.arange(a.n_positions, dtype=np.float32)[:, None] * np.exp(even * -(math.log(10000) / a.n_embd))
        table = np.stack([np.sin(angles), np.cos(angles)], -1).astype(np.float32)
        self.register_buffer("table", torch.from_numpy(table).flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table[: x.shape[1]]


def float32_positions(a: Any, model: GPT2) -> GPT2:
    model.wpe = AddsPositions(a)
    model.embed = MethodType(lambda m, ids, positions: m.wpe(m.wte(ids)), model)
    return model


class AsksWithIds(nn.Embedding):
    """A table of positions that is called with the tokens."""

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(torch.arange(ids.shape[-1]))


def positions_by_ids(a: Any, model: GPT2) -> GPT2:
    model.wpe = AsksWithIds(a.n_positions, a.n_embd)
    model.positions = lambda ids: ids
    return model


def reshaped(a: Any, model: GPT2) -> GPT2:
    for block in model.h:
        block.attn = Reshaped(a.n_embd, a.n_head)
    return model


def looks_ahead(m: plain.Attention, scores: Tensor) -> Tensor:
    return scores.masked_fill(plain.causal(scores), 1e-9)


unbiased = mistake(Norm, eps=1e-3, forward=lambda m, x: plain.layer_norm(m, x, x.var(-1, keepdim=True)))
only_scaled_tokens = mistake(GPT2, embed=lambda m, ids, p: m.wte(ids) * math.sqrt(m.wte.embedding_dim))
twice_the_mlp = (
    mistake(MLP, forward=lambda m, x: 2 * m.c_proj(m.act(m.c_fc(x)))),
    mistake(Block, forward=halved),
)

# In different modules, and between modules
act_and_ln_f = several(plain.act_erf, plain.no_ln_f)
bias_act_positions = several(plain.act_erf, plain.no_qkv_bias, plain.positions_later)
four = several(plain.act_relu, plain.scale_width, plain.no_residual_mlp, plain.embedding_scaled)
five = several(plain.act_sigmoid, plain.norm_unbiased, plain.scale_none, plain.no_qkv_bias, plain.no_ln_f)
five_to_the_logits = several(erf([0, 2]), no_fc_bias, plain.mask_none, plain.positions_earlier, plain.logits_scaled)
# Two in one module
scale_and_mask = several(plain.scale_none, plain.mask_ahead)
mlp_in_one_piece = mistake(MLP, forward=in_one_piece)
eps_and_variance = several(unbiased)
heads_and_rounding = several(plain.heads_interleaved, plain.weights_fp16)
# Two between the same modules, or one after the other
embeddings = several(only_scaled_tokens)
positions_and_ln_f = several(plain.positions_later, plain.no_ln_f)
one_rounding_and_ln_f = several(mistake(GPT2, forward=rounded_once), plain.no_ln_f)
order_and_rounding = several(plain.layers_swapped, plain.residual_fp16)
# One around the other
block_and_rounding = several(plain.post_norm, plain.residual_fp16)
eps_and_ln_f_twice = several(plain.eps_1e6, mistake(GPT2, norm=lambda m, x: m.ln_f(m.ln_f(x))))
# In some layers only
one_layer = several(erf([1]), plain.positions_later)
# What makes numbers useless
with_nan = several(plain.mask_strict_inf, plain.eps_1e6, plain.layers_swapped)
with_dropout = several(plain.eps_1e6, plain.dropout_attention, plain.no_ln_f)
nan_and_dropout = several(plain.mask_strict_inf, plain.dropout_embedding)
# With something unknown
unknown_after_known = several(plain.scale_none, silu_nearly())
unknown_before_known = several(silu_nearly([1]), plain.no_ln_f)
unknown_input = several(plain.act_erf, mistake(GPT2, norm=lambda m, x: m.ln_f(x).tanh()), plain.logits_scaled)
# Other structures, and weights
thirds = several(no_query_bias, plain.scale_none)
other_parts = several(*twice_the_mlp, plain.no_ln_f)
log_softmax = several(plain.norm_rms, plain.logits_shifted)
own_weights_and_code = own_with("own_bias_forgotten", plain.act_erf, plain.no_ln_f)
# Seen in the wild
rms_norms = several(rms_plus_eps, plain.act_relu)
nothing_in_blocks = several(empty_blocks, plain.logits_scaled)
residuals_inside = several(
    reshaped,
    mistake(MLP, forward=lambda m, x: x + m.c_proj(m.act(m.c_fc(x)))),
    mistake(Block, forward=lambda m, x: m.mlp(m.ln_2(m.attn(m.ln_1(x))))),
)
inverted_and_tokens_twice = several(
    mistake(plain.Attention, mask=looks_ahead),
    mistake(GPT2, embed=lambda m, ids, p: m.wte(ids) + m.wte(ids) + plain.sinusoids(p, m.wte.embedding_dim)),
)
table_in_float32 = several(float32_positions, plain.no_ln_f)
called_with_ids = several(positions_by_ids, plain.mask_none)
biased_head = several(plain.bias_in_head, plain.no_ln_f)
another_architecture = several(rms_plus_eps, plain.rope_halves, gated)
