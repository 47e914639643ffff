"""A plain GPT-2, as people write it: correct, with one mistake at a time, and correct in other ways.

The architecture and the weights are Radford et al., 2019, and Hugging Face's names.
"""

import math
import os
from collections.abc import Callable, Iterable
from types import MethodType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Norm(nn.Module):
    eps = 1e-5

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(-1, keepdim=True)
        return x / (x.square().mean(-1, keepdim=True) + self.eps).sqrt() * self.weight + self.bias


class Activation(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


class Attention(nn.Module):
    def __init__(self, a: Any) -> None:
        super().__init__()
        self.n_head = a.n_head
        self.c_attn = nn.Linear(a.n_embd, 3 * a.n_embd)
        self.c_proj = nn.Linear(a.n_embd, a.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(self.c_attn(x))  # [B, H, T, D]
        weights = self.softmax(self.mask(self.scale(q @ k.transpose(-1, -2))))  # [B, H, T, T]
        return self.c_proj(self.merge(weights @ v))

    def split(self, qkv: Tensor) -> Iterable[Tensor]:
        return qkv.unflatten(-1, (3, self.n_head, -1)).permute(2, 0, 3, 1, 4)

    def scale(self, scores: Tensor) -> Tensor:
        return scores / math.sqrt(self.c_attn.in_features / self.n_head)

    def mask(self, scores: Tensor) -> Tensor:
        return scores.masked_fill(~causal(scores), -torch.inf)

    def softmax(self, scores: Tensor) -> Tensor:
        return scores.softmax(-1)

    def merge(self, heads: Tensor) -> Tensor:
        return heads.transpose(1, 2).flatten(2)


def causal(scores: Tensor, diagonal: int = 0) -> Tensor:
    return torch.ones_like(scores, dtype=torch.bool).tril(diagonal)


class MLP(nn.Module):
    def __init__(self, a: Any) -> None:
        super().__init__()
        self.c_fc = nn.Linear(a.n_embd, 4 * a.n_embd)
        self.act = Activation()
        self.c_proj = nn.Linear(4 * a.n_embd, a.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.act(self.c_fc(x)))


class Block(nn.Module):
    def __init__(self, a: Any) -> None:
        super().__init__()
        self.ln_1 = Norm(a.n_embd)
        self.attn = Attention(a)
        self.ln_2 = Norm(a.n_embd)
        self.mlp = MLP(a)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT2(nn.Module):
    def __init__(self, a: Any) -> None:
        super().__init__()
        self.wte = nn.Embedding(a.vocab_size, a.n_embd)
        self.wpe = nn.Embedding(a.n_positions, a.n_embd)
        self.drop = nn.Dropout(0.1)
        self.h = nn.ModuleList(Block(a) for _ in range(a.n_layer))
        self.ln_f = Norm(a.n_embd)
        self.lm_head = nn.Linear(a.n_embd, a.vocab_size, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.drop(self.embed(ids, self.positions(ids)))
        for block in self.blocks():
            x = self.between(block(x))
        return self.head(self.norm(x))

    def positions(self, ids: Tensor) -> Tensor:
        return torch.arange(ids.shape[1], device=ids.device)

    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        return self.wte(ids) + self.wpe(positions)

    def blocks(self) -> list[nn.Module]:
        return list(self.h)

    def between(self, x: Tensor) -> Tensor:
        return x

    def norm(self, x: Tensor) -> Tensor:
        return self.ln_f(x)

    def head(self, x: Tensor) -> Tensor:
        return self.lm_head(x)


# Mistakes in methods


def mistake(kind: type[nn.Module], layers: Iterable[int] | None = None, **attributes: Any) -> Callable[..., GPT2]:
    """A GPT-2, or the model that is given, in which all modules of a kind have other attributes or methods.

    With `layers`, only those in some blocks.
    """

    def make(a: Any, model: GPT2 | None = None) -> GPT2:
        model = model or GPT2(a)
        wholes = [model] if layers is None else [model.h[i] for i in layers]
        for part in [part for whole in wholes for part in whole.modules() if isinstance(part, kind)]:
            for name, value in attributes.items():
                setattr(part, name, MethodType(value, part) if callable(value) else value)
        return model

    return make


def several(*makes: Callable[..., GPT2]) -> Callable[[Any], GPT2]:
    """A GPT-2 with several mistakes."""

    def make(a: Any) -> GPT2:
        model = GPT2(a)
        for each in makes:
            each(a, model)
        return model

    return make


def half(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype).to(x.dtype)


def layer_norm(m: Norm, x: Tensor, variance: Tensor) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (variance + m.eps).sqrt() * m.weight + m.bias


act_erf = mistake(Activation, forward=lambda m, x: F.gelu(x))
act_sigmoid = mistake(Activation, forward=lambda m, x: x * torch.sigmoid(1.702 * x))
act_relu = mistake(Activation, forward=lambda m, x: x.relu())
act_squared = mistake(Activation, forward=lambda m, x: x.relu() ** 2)
nearly_silu = mistake(Activation, forward=lambda m, x: F.silu(x) + 0.02 * x)
act_fp16 = mistake(Activation, forward=lambda m, x: half(F.gelu(x, approximate="tanh"), torch.float16))
erf_in_mlp = mistake(MLP, forward=lambda m, x: m.c_proj(F.gelu(m.c_fc(x))))
mlp_bf16 = mistake(MLP, forward=lambda m, x: m.c_proj(half(m.act(m.c_fc(x)), torch.bfloat16)))

eps_1e6 = mistake(Norm, eps=1e-6)
eps_1e12 = mistake(Norm, eps=1e-12)
norm_rms = mistake(Norm, forward=lambda m, x: x * (x.square().mean(-1, True) + m.eps).rsqrt() * m.weight + m.bias)
norm_unbiased = mistake(Norm, forward=lambda m, x: layer_norm(m, x, x.var(-1, keepdim=True)))

scale_none = mistake(Attention, scale=lambda m, scores: scores)
scale_width = mistake(Attention, scale=lambda m, scores: scores / math.sqrt(m.c_attn.in_features))
split = Attention.split
order_qvk = mistake(Attention, split=lambda m, qkv: [split(m, qkv)[i] for i in (0, 2, 1)])
order_kqv = mistake(Attention, split=lambda m, qkv: [split(m, qkv)[i] for i in (1, 0, 2)])
order_kvq = mistake(Attention, split=lambda m, qkv: [split(m, qkv)[i] for i in (1, 2, 0)])
order_vqk = mistake(Attention, split=lambda m, qkv: [split(m, qkv)[i] for i in (2, 0, 1)])
order_vkq = mistake(Attention, split=lambda m, qkv: [split(m, qkv)[i] for i in (2, 1, 0)])
heads_interleaved = mistake(Attention, split=lambda m, qkv: qkv.unflatten(-1, (3, -1, m.n_head)).permute(2, 0, 4, 1, 3))
heads_of_thirds = mistake(Attention, split=lambda m, qkv: qkv.unflatten(-1, (m.n_head, 3, -1)).permute(3, 0, 2, 1, 4))
heads_not_transposed = mistake(Attention, merge=lambda m, heads: heads.reshape(len(heads), heads.shape[2], -1))
mask_none = mistake(Attention, mask=lambda m, scores: scores)
mask_ahead = mistake(Attention, mask=lambda m, scores: scores.masked_fill(~causal(scores, 1), -torch.inf))
mask_strict = mistake(Attention, mask=lambda m, scores: scores.masked_fill(~causal(scores, -1), -1e9))
mask_strict_inf = mistake(Attention, mask=lambda m, scores: scores.masked_fill(~causal(scores, -1), -torch.inf))
mask_filled = mistake(Attention, mask=lambda m, scores: scores.masked_fill(~causal(scores), -1e-9))
scale_n_head = mistake(Attention, scale=lambda m, scores: scores / m.n_head)


def turned(x: Tensor, pairs: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]) -> Tensor:
    """RoPE by complex numbers."""
    z = torch.view_as_complex(pairs(x).contiguous())
    speeds = 10000 ** -(torch.arange(z.shape[-1]) / z.shape[-1])
    angles = torch.outer(torch.arange(x.shape[-2]), speeds)
    return back(torch.view_as_real(z * torch.polar(torch.ones_like(angles), angles)))


def by_halves(x: Tensor) -> Tensor:
    return turned(x, lambda x: x.unflatten(-1, (2, -1)).transpose(-1, -2), lambda y: y.transpose(-1, -2).flatten(-2))


def by_neighbours(x: Tensor) -> Tensor:
    return turned(x, lambda x: x.unflatten(-1, (-1, 2)), lambda y: y.flatten(-2))


def value_for_query(m: Attention, qkv: Tensor) -> Iterable[Tensor]:
    _, k, v = split(m, qkv)
    return v, k, v


query_by_value = mistake(Attention, split=value_for_query)


def swapped(x: Tensor) -> Tensor:
    """The second half before the first."""
    return x.roll(x.shape[-1] // 2, -1)


def with_rope(turn: Callable[[Tensor], Tensor]) -> Callable[..., GPT2]:
    def split_and_turn(m: Attention, qkv: Tensor) -> Iterable[Tensor]:
        q, k, v = split(m, qkv)
        return turn(q), turn(k), v

    return mistake(Attention, split=split_and_turn)


rope_halves, rope_neighbours = with_rope(by_halves), with_rope(by_neighbours)
rope_backwards = with_rope(lambda x: swapped(by_halves(swapped(x))))


def with_distance(m: Attention, scores: Tensor) -> Tensor:
    for head in range(m.n_head):
        for query in range(scores.shape[-2]):
            for key in range(query + 1):
                scores[:, head, query, key] -= (query - key) / 256 ** ((head + 1) / m.n_head)
    return scores.masked_fill(~causal(scores), -torch.inf)


alibi = mistake(Attention, mask=with_distance)
softmax_queries = mistake(Attention, softmax=lambda m, scores: scores.softmax(-2))
softmax_heads = mistake(Attention, softmax=lambda m, scores: scores.softmax(1))
softmax_batch = mistake(Attention, softmax=lambda m, scores: scores.softmax(0))
weights_fp16 = mistake(Attention, softmax=lambda m, scores: half(scores.softmax(-1), torch.float16))
weights_bf16 = mistake(Attention, softmax=lambda m, scores: half(scores.softmax(-1), torch.bfloat16))
dropout_attention = mistake(Attention, softmax=lambda m, scores: F.dropout(scores.softmax(-1), 0.1))


def sdpa_with_dropout(m: Attention, x: Tensor) -> Tensor:
    y = F.scaled_dot_product_attention(*m.split(m.c_attn(x)), dropout_p=0.1, is_causal=True)
    return m.c_proj(m.merge(y))


dropout_sdpa = mistake(Attention, forward=sdpa_with_dropout)
dropout_residual = mistake(Attention, merge=lambda m, heads: F.dropout(heads.transpose(1, 2).flatten(2), 0.1))


def post(m: Block, x: Tensor) -> Tensor:
    x = m.ln_1(x + m.attn(x))
    return m.ln_2(x + m.mlp(x))


def branches(first: Callable[..., Tensor], second: Callable[..., Tensor]) -> Callable[[Any], GPT2]:
    return mistake(Block, forward=lambda m, x: second(m, first(m, x)))


def attend(m: Block, x: Tensor) -> Tensor:
    return x + m.attn(m.ln_1(x))


def think(m: Block, x: Tensor) -> Tensor:
    return x + m.mlp(m.ln_2(x))


post_norm = mistake(Block, forward=post)
norms_swapped = branches(lambda m, x: x + m.attn(m.ln_2(x)), lambda m, x: x + m.mlp(m.ln_1(x)))
norms_bare = branches(
    lambda m, x: x + m.attn(F.layer_norm(x, x.shape[-1:])), lambda m, x: x + m.mlp(F.layer_norm(x, x.shape[-1:]))
)
no_ln_1 = branches(lambda m, x: x + m.attn(x), think)
no_ln_2 = branches(attend, lambda m, x: x + m.mlp(x))
no_residual_attn = branches(lambda m, x: m.attn(m.ln_1(x)), think)
no_residual_mlp = branches(attend, lambda m, x: m.mlp(m.ln_2(x)))
residual_twice = branches(lambda m, x: 2 * x + m.attn(m.ln_1(x)), think)
dropout_block = branches(lambda m, x: x + F.dropout(m.attn(m.ln_1(x)), 0.1), think)


def unchained(m: GPT2, ids: Tensor) -> Tensor:
    x = m.drop(m.embed(ids, m.positions(ids)))
    for block in m.h:
        y = block(x)
    return m.head(m.norm(y))


layers_unchained = mistake(GPT2, forward=unchained)
no_ln_f = mistake(GPT2, norm=lambda m, x: x)
layers_swapped = mistake(GPT2, blocks=lambda m: [m.h[0], m.h[2], m.h[1]])
layers_backwards = mistake(GPT2, blocks=lambda m: reversed(m.h))
layer_skipped = mistake(GPT2, blocks=lambda m: [m.h[0], m.h[2]])
last_layer_skipped = mistake(GPT2, blocks=lambda m: m.h[:-1])
positions_later = mistake(GPT2, positions=lambda m, ids: torch.arange(ids.shape[1]) + 1)
positions_earlier = mistake(GPT2, positions=lambda m, ids: (torch.arange(ids.shape[1]) - 1).clamp(min=0))
sum_scaled = mistake(GPT2, embed=lambda m, ids, p: (m.wte(ids) + m.wpe(p)) * math.sqrt(m.wte.embedding_dim))
no_positions = mistake(GPT2, embed=lambda m, ids, positions: m.wte(ids))
embedding_scaled = mistake(
    GPT2, embed=lambda m, ids, positions: m.wte(ids) * math.sqrt(m.wte.embedding_dim) + m.wpe(positions)
)


def sinusoids(positions: Tensor, width: int) -> Tensor:
    table = torch.zeros(len(positions), width)
    for i in range(0, width, 2):
        table[:, i] = (positions / 10000 ** (i / width)).sin()
        table[:, i + 1] = (positions / 10000 ** (i / width)).cos()
    return table


positions_sinusoidal = mistake(GPT2, embed=lambda m, ids, p: m.wte(ids) + sinusoids(p, m.wte.embedding_dim))
dropout_embedding = mistake(GPT2, embed=lambda m, ids, positions: F.dropout(m.wte(ids) + m.wpe(positions), 0.1))
residual_fp16 = mistake(GPT2, between=lambda m, x: half(x, torch.float16))
residual_bf16 = mistake(GPT2, between=lambda m, x: half(x, torch.bfloat16))
logits_capped = mistake(GPT2, head=lambda m, x: 30 * (m.lm_head(x) / 30).tanh())
logits_shifted = mistake(GPT2, head=lambda m, x: m.lm_head(x).log_softmax(-1))
logits_fp16 = mistake(GPT2, head=lambda m, x: half(m.lm_head(x), torch.float16))
logits_scaled = mistake(GPT2, head=lambda m, x: m.lm_head(x) / math.sqrt(m.wte.embedding_dim))
probabilities = mistake(GPT2, head=lambda m, x: m.lm_head(x).softmax(-1))


# Mistakes in what the model is made of


def no_qkv_bias(a: Any, model: GPT2 | None = None) -> GPT2:
    model = model or GPT2(a)
    for block in model.h:
        block.attn.c_attn.bias = None
    return model


def no_norm_bias(a: Any, model: GPT2 | None = None) -> GPT2:
    model = model or GPT2(a)
    for norm in [part for part in model.modules() if isinstance(part, Norm)]:
        norm.forward = MethodType(lambda m, x: F.layer_norm(x, m.weight.shape, m.weight, None, m.eps), norm)
        norm.bias = None
    return model


def bias_in_head(a: Any, model: GPT2 | None = None) -> GPT2:
    model = model or GPT2(a)
    model.lm_head.bias = nn.Parameter(torch.ones(a.vocab_size).cumsum(0))
    return model


def identity_for_ln_2(a: Any, model: GPT2 | None = None) -> GPT2:
    model = model or GPT2(a)
    for block in model.h:
        block.ln_2 = nn.Identity()
    return model


# Models that load their weights themselves, from the file that PLAIN_WEIGHTS names

File = dict[str, Tensor]


def loads(read: Callable[[File, str], Tensor]) -> Callable[[Any], GPT2]:
    """A GPT-2 whose parameters are what `read` makes of the file."""

    def make(a: Any) -> GPT2:
        from safetensors.torch import load_file

        file = {name.removeprefix("transformer."): x for name, x in load_file(os.environ["PLAIN_WEIGHTS"]).items()}
        model = GPT2(a)
        for name, parameter in model.named_parameters():
            parameter.data = read(file, name).clone()
        return model

    return make


def right(file: File, name: str) -> Tensor:
    conv1d = any(name.endswith(f"{layer}.weight") for layer in ("c_attn", "c_proj", "c_fc"))
    return file[name].t() if conv1d else file[name]


def untransposed(*ends: str) -> Callable[[Any], GPT2]:
    """Transposes all but the square matrices called so; others it reshapes."""

    def read(file: File, name: str) -> Tensor:
        return file[name].reshape(right(file, name).shape) if name.endswith(ends) else right(file, name)

    return loads(read)


def renamed(*pair: str) -> Callable[[Any], GPT2]:
    """Takes one tensor for the other and the other way round."""
    names = dict([pair, pair[::-1]])

    def read(file: File, name: str) -> Tensor:
        return right(file, next((name.replace(a, b) for a, b in names.items() if a in name), name))

    return loads(read)


def own_head_untied(a: Any) -> GPT2:
    model = own(a)
    torch.manual_seed(0)
    model.lm_head = nn.Linear(a.n_embd, a.vocab_size, bias=False)
    return model


own = loads(right)
own_attn_proj_untransposed = untransposed("attn.c_proj.weight")
own_qkv_reshaped = untransposed("c_attn.weight")
own_fc_reshaped = untransposed("c_fc.weight")
own_all_reshaped = untransposed("c_attn.weight", "c_proj.weight", "c_fc.weight")
own_norms_swapped = renamed(".ln_1.", ".ln_2.")
own_layers_swapped = renamed("h.1.", "h.2.")
own_order_kqv = loads(
    lambda file, name: (
        torch.cat([right(file, name).chunk(3)[i] for i in (1, 0, 2)]) if "c_attn" in name else right(file, name)
    )
)
own_bias_forgotten = loads(lambda file, name: right(file, name) * (not name.endswith("c_fc.bias")))
own_bf16 = loads(lambda file, name: half(right(file, name), torch.bfloat16))


# Correct, and written in other ways


def no_argument() -> GPT2:
    return GPT2(SimpleNamespace(vocab_size=300, n_positions=32, n_embd=48, n_layer=3, n_head=3))


class ByKeyword(GPT2):
    def forward(self, *, input_ids: Tensor) -> Tensor:
        return super().forward(input_ids)


class Compiled(nn.Module):
    """Named as torch.compile names what it wraps."""

    def __init__(self, a: Any) -> None:
        super().__init__()
        self._orig_mod = GPT2(a)

    def forward(self, ids: Tensor) -> Tensor:
        return self._orig_mod(ids)


class PositionParameter(GPT2):
    """Positions as one parameter of the shape [1, T, C]."""

    def __init__(self, a: Any) -> None:
        super().__init__(a)
        self.wpe = nn.Module()
        self.wpe.weight = nn.Parameter(torch.zeros(1, a.n_positions, a.n_embd))

    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        return self.wte(ids) + self.wpe.weight[:, : len(positions)]


class InOut(nn.Module):
    """A layer whose matrix is [in, out], as Conv1D's is."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


def mixed_layouts(a: Any) -> GPT2:
    model = GPT2(a)
    for block in model.h:
        block.attn.c_proj = InOut(a.n_embd)
    return model


def ends_elsewhere(a: Any) -> GPT2:
    """The MLP makes twice what GPT-2's makes, and the block halves it."""
    model = mistake(MLP, forward=lambda m, x: 2 * m.c_proj(m.act(m.c_fc(x))))(a)
    for block in model.h:
        block.forward = MethodType(lambda m, x: (x := attend(m, x)) + m.mlp(m.ln_2(x)) / 2, block)
    return model


class Flat(nn.Module):
    """Raw parameters, no modules: all that can be compared is what comes out."""

    act = staticmethod(lambda x: F.gelu(x, approximate="tanh"))

    def __init__(self, a: Any) -> None:
        super().__init__()
        self.a, C = a, a.n_embd
        shapes: dict[str, tuple[int, ...]] = {"wte.weight": (a.vocab_size, C), "wpe.weight": (a.n_positions, C)}
        for norm in ("ln_f", *(f"h.{i}.ln_{n}" for i in range(a.n_layer) for n in (1, 2))):
            shapes |= {f"{norm}.weight": (C,), f"{norm}.bias": (C,)}
        layers = {"attn.c_attn": (C, 3 * C), "attn.c_proj": (C, C), "mlp.c_fc": (C, 4 * C), "mlp.c_proj": (4 * C, C)}
        for i in range(a.n_layer):
            for layer, shape in layers.items():
                shapes |= {f"h.{i}.{layer}.weight": shape, f"h.{i}.{layer}.bias": shape[1:]}
        for name, shape in shapes.items():
            self.register_parameter(name.replace(".", "/"), nn.Parameter(torch.zeros(shape)))

    def forward(self, ids: Tensor) -> Tensor:
        p = {name.replace("/", "."): value for name, value in self.named_parameters()}

        def linear(x: Tensor, name: str) -> Tensor:
            return x @ p[f"{name}.weight"] + p[f"{name}.bias"]

        def norm(x: Tensor, name: str) -> Tensor:
            return F.layer_norm(x, x.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"])

        x = p["wte.weight"][ids] + p["wpe.weight"][: ids.shape[1]]
        for i in range(self.a.n_layer):
            qkv = linear(norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn").unflatten(-1, (3, self.a.n_head, -1))
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
            x = x + linear(y, f"h.{i}.attn.c_proj")
            x = x + linear(self.act(linear(norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc")), f"h.{i}.mlp.c_proj")
        return norm(x, "ln_f") @ p["wte.weight"].t()


class FlatErf(Flat):
    act = staticmethod(F.gelu)


CONSTANT = torch.tensor(math.sqrt(2 / math.pi))  # in the dtype of the time of the import
module_constant = mistake(Activation, forward=lambda m, x: 0.5 * x * (1 + torch.tanh(CONSTANT * (x + 0.044715 * x**3))))


def add_in_place(m: Block, x: Tensor) -> Tensor:
    x += m.attn(m.ln_1(x))
    x += m.mlp(m.ln_2(x))
    return x


in_place = mistake(Block, forward=add_in_place)


def hugging_face(a: Any) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
    return GPT2LMHeadModel(GPT2Config(**{name: a[name] for name in sizes}))


def in_float(x: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
    return f(x.float()).to(x.dtype)


tuple_answer = mistake(GPT2, head=lambda m, x: (m.lm_head(x), None))
dict_answer = mistake(GPT2, head=lambda m, x: {"loss": None, "logits": m.lm_head(x)})
object_answer = mistake(GPT2, head=lambda m, x: SimpleNamespace(logits=m.lm_head(x)))
upcast_softmax = mistake(Attention, softmax=lambda m, scores: in_float(scores, lambda x: x.softmax(-1)))
upcast_by_to = mistake(Attention, softmax=lambda m, s: s.to(torch.float32).softmax(-1).to(s.dtype))
upcast_norm = mistake(
    Norm,
    forward=lambda m, x: in_float(x, lambda x: F.layer_norm(x, x.shape[-1:], m.weight.float(), m.bias.float(), m.eps)),
)


class LastPosition(GPT2):
    """Answers for all positions only where there is a loss to compute."""

    def forward(self, ids: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        logits = super().forward(ids)
        if targets is None:
            return logits[:, [-1]], None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def in_one_piece(activation: Callable, linear: Callable = F.linear) -> Callable[[Any], GPT2]:
    """Blocks that call none of their modules."""

    def forward(m: Block, x: Tensor) -> Tensor:
        def norm(part: nn.Module, x: Tensor) -> Tensor:
            return F.layer_norm(x, x.shape[-1:], part.weight, part.bias)

        q, k, v = m.attn.split(linear(norm(m.ln_1, x), m.attn.c_attn.weight, m.attn.c_attn.bias))
        y = m.attn.merge(F.scaled_dot_product_attention(q, k, v, is_causal=True))
        x = x + linear(y, m.attn.c_proj.weight, m.attn.c_proj.bias)
        y = activation(linear(norm(m.ln_2, x), m.mlp.c_fc.weight, m.mlp.c_fc.bias))
        return x + linear(y, m.mlp.c_proj.weight, m.mlp.c_proj.bias)

    return mistake(Block, forward=forward)


monolith = in_one_piece(Activation())
monolith_erf = in_one_piece(F.gelu)


class Raw(nn.Module):
    """Parameters [in, out], as in TensorFlow, and nothing that can be called."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(linear.weight.t().clone())
        self.bias = linear.bias


def raw_parameters(a: Any) -> GPT2:
    model = in_one_piece(Activation(), lambda x, weight, bias: x @ weight + bias)(a)
    for block in model.h:
        for part, name in ((block.attn, "c_attn"), (block.attn, "c_proj"), (block.mlp, "c_fc"), (block.mlp, "c_proj")):
            setattr(part, name, Raw(getattr(part, name)))
    return model


class Book(nn.Module):
    """Separate projections, and norms with a scale and a shift."""

    def __init__(self, cfg: dict[str, Any]) -> None:
        super().__init__()
        self.tok_emb = nn.Embedding(cfg["vocab_size"], cfg["emb_dim"])
        self.pos_emb = nn.Embedding(cfg["context_length"], cfg["emb_dim"])
        self.trf_blocks = nn.Sequential(*(BookBlock(cfg) for _ in range(cfg["n_layers"])))
        self.final_norm = BookNorm(cfg["emb_dim"])
        self.out_head = nn.Linear(cfg["emb_dim"], cfg["vocab_size"], bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tok_emb(ids) + self.pos_emb(torch.arange(ids.shape[1]))
        return self.out_head(self.final_norm(self.trf_blocks(x)))


class BookNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        variance = x.var(-1, keepdim=True, unbiased=False)
        return self.scale * (x - x.mean(-1, keepdim=True)) / torch.sqrt(variance + 1e-5) + self.shift


class BookAttention(nn.Module):
    def __init__(self, cfg: dict[str, Any]) -> None:
        super().__init__()
        self.num_heads, width = cfg["n_heads"], cfg["emb_dim"]
        self.W_query = nn.Linear(width, width, bias=cfg["qkv_bias"])
        self.W_key = nn.Linear(width, width, bias=cfg["qkv_bias"])
        self.W_value = nn.Linear(width, width, bias=cfg["qkv_bias"])
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            project(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for project in (self.W_query, self.W_key, self.W_value)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out_proj(y.transpose(1, 2).flatten(2))


class BookBlock(nn.Module):
    def __init__(self, cfg: dict[str, Any]) -> None:
        super().__init__()
        width = cfg["emb_dim"]
        self.att = BookAttention(cfg)
        self.ff = nn.Module()
        self.ff.layers = nn.Sequential(nn.Linear(width, 4 * width), Activation(), nn.Linear(4 * width, width))
        self.ff.forward = self.ff.layers.forward
        self.norm1 = BookNorm(width)
        self.norm2 = BookNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.att(self.norm1(x))
        return x + self.ff(self.norm2(x))
