"""Correct GPT-2s in the styles in which people write them, whose names and shapes are not Hugging Face's."""

import math
import os
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention, [..., T, D]."""
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    later = torch.ones_like(scores, dtype=torch.bool).triu(1)
    return scores.masked_fill(later, -torch.inf).softmax(-1) @ v


class Head(nn.Module):
    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.key, self.query, self.value = (nn.Linear(width, size) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return attend(self.query(x), self.key(x), self.value(x))


class Heads(nn.Module):
    """A module for each head."""

    def __init__(self, width: int, n_head: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(Head(width, width // n_head) for _ in range(n_head))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(torch.cat([head(x) for head in self.heads], -1))


class Projections(nn.Module):
    """Separate projections for all heads."""

    def __init__(self, width: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.W_value, self.W_output, self.W_key, self.W_query = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            f(x).unflatten(-1, (self.n_head, -1)).transpose(1, 2) for f in (self.W_query, self.W_key, self.W_value)
        )
        return self.W_output(attend(q, k, v).transpose(1, 2).flatten(2))


class Library(nn.Module):
    """torch's own module, whose projections are parameters of one module."""

    def __init__(self, width: int, n_head: int) -> None:
        super().__init__()
        self.inside = nn.MultiheadAttention(width, n_head, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        answer: Tensor = self.inside(x, x, x, attn_mask=mask, need_weights=False)[0]
        return answer


class Einsum(nn.Module):
    """Parameters with a dimension for the heads."""

    def __init__(self, width: int, n_head: int) -> None:
        super().__init__()
        size = width // n_head
        self.W_Q, self.W_K, self.W_V = (nn.Parameter(torch.randn(n_head, width, size)) for _ in range(3))
        self.b_Q, self.b_K, self.b_V = (nn.Parameter(torch.zeros(n_head, size)) for _ in range(3))
        self.W_O, self.b_O = nn.Parameter(torch.randn(n_head, size, width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        pairs = ((self.W_Q, self.b_Q), (self.W_K, self.b_K), (self.W_V, self.b_V))
        q, k, v = (torch.einsum("btc,hcd->bhtd", x, weight) + bias[:, None] for weight, bias in pairs)
        return torch.einsum("bhtd,hdc->btc", attend(q, k, v), self.W_O) + self.b_O


class MatrixMLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.W_in, self.b_in = nn.Parameter(torch.randn(width, 4 * width)), nn.Parameter(torch.zeros(4 * width))
        self.W_out, self.b_out = nn.Parameter(torch.randn(4 * width, width)), nn.Parameter(torch.zeros(width))
        self.gelu = nn.GELU("tanh")

    def forward(self, x: Tensor) -> Tensor:
        return self.gelu(x @ self.W_in + self.b_in) @ self.W_out + self.b_out


class Sequence(nn.Module):
    approximate = "tanh"

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(self.approximate), nn.Linear(4 * width, width), nn.Dropout(0.1)
        )

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.net(x)
        return answer


class ExactSequence(Sequence):
    approximate = "none"


class ScaledNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.beta, self.gamma = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.layer_norm(x, self.gamma.shape, self.gamma, self.beta)


class Layer(nn.Module):
    """The norm of the MLP is defined first."""

    def __init__(self, a: Any, attention: Any, mlp: Any, norm: Any) -> None:
        super().__init__()
        self.norm_b, self.norm_a = norm(a.n_embd), norm(a.n_embd)
        self.sa, self.ffwd = attention(a.n_embd, a.n_head), mlp(a.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.sa(self.norm_a(x))
        return x + self.ffwd(self.norm_b(x))


class Model(nn.Module):
    attention: Any = Projections
    mlp: Any = Sequence
    norm: Any = ScaledNorm

    def __init__(self, a: Any) -> None:
        super().__init__()
        layers = (Layer(a, self.attention, self.mlp, self.norm) for _ in range(a.n_layer))
        self.blocks = nn.Sequential(*layers)
        self.position_table = nn.Parameter(torch.randn(1, a.n_positions, a.n_embd))
        self.token_table = nn.Embedding(a.vocab_size, a.n_embd)
        self.last = self.norm(a.n_embd)
        self.unembed = nn.Linear(a.n_embd, a.vocab_size, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token_table(ids) + self.position_table[:, : ids.shape[1]]
        return self.unembed(self.last(self.blocks(x)))


class PerHead(Model):
    attention = Heads
    norm = nn.LayerNorm


class InLibrary(Model):
    attention = Library


class WithEinsum(Model):
    attention, mlp = Einsum, MatrixMLP


class Twice(Model):
    """Each part of a layer is in a list as well."""

    def __init__(self, a: Any) -> None:
        super().__init__(a)
        for layer in self.blocks:
            layer.net = nn.ModuleList([layer.norm_a, layer.sa, layer.norm_b, layer.ffwd])


class UntoldNorm(nn.Module):
    """Its names do not tell which of them is the weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean_scale, self.std_scale = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.layer_norm(x, self.std_scale.shape, self.std_scale, self.mean_scale)


class Untold(Model):
    norm = UntoldNorm


class NormInside(PerHead):
    """With a norm at the end of the MLP."""

    def __init__(self, a: Any) -> None:
        super().__init__(a)
        for layer in self.blocks:
            layer.ffwd.net.append(nn.LayerNorm(a.n_embd))


class MLPAtTheEnd(PerHead):
    """With an MLP before the head, whose first matrix has the head's shape if n_embd is a quarter of the tokens."""

    def __init__(self, a: Any) -> None:
        super().__init__(a)
        self.lm_head, self.extra = self.unembed, Sequence(a.n_embd)
        del self.unembed

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token_table(ids) + self.position_table[:, : ids.shape[1]]
        return self.lm_head(self.last(self.extra(self.blocks(x))))


class OnlyNorms(nn.Module):
    """All matrices have Hugging Face's names, and the norms have not."""

    def __init__(self, a: Any) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(a.vocab_size, a.n_embd), nn.Embedding(a.n_positions, a.n_embd)
        self.h = nn.ModuleList(OnlyNormsLayer(a) for _ in range(a.n_layer))
        self.ln_f = nn.LayerNorm(a.n_embd)
        self.lm_head = nn.Linear(a.n_embd, a.vocab_size, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device))
        for layer in self.h:
            x = layer(x)
        return self.lm_head(self.ln_f(x))


class OnlyNormsLayer(nn.Module):
    def __init__(self, a: Any) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(a.n_embd), nn.LayerNorm(a.n_embd)
        self.n_head = a.n_head
        self.attn, self.mlp = nn.Module(), nn.Module()
        self.attn.c_attn, self.attn.c_proj = nn.Linear(a.n_embd, 3 * a.n_embd), nn.Linear(a.n_embd, a.n_embd)
        self.mlp.c_fc, self.mlp.c_proj = nn.Linear(a.n_embd, 4 * a.n_embd), nn.Linear(4 * a.n_embd, a.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        thirds = self.attn.c_attn(self.ln1(x)).chunk(3, -1)
        q, k, v = (each.unflatten(-1, (self.n_head, -1)).transpose(1, 2) for each in thirds)
        x = x + self.attn.c_proj(attend(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp.c_proj(nn.functional.gelu(self.mlp.c_fc(self.ln2(x)), approximate="tanh"))


class Exact(PerHead):
    mlp = ExactSequence


class Numbered(Model):
    """Layers that are attributes, counted from 1; a head that is tied, and has another name for it."""

    def __init__(self, a: Any) -> None:
        super().__init__(a)
        for i, layer in enumerate(self.blocks, 1):
            setattr(self, f"layer_{i}", layer)
        self.n_layer = len(self.blocks)
        del self.blocks
        self.unembed.weight = self.token_table.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token_table(ids) + self.position_table[:, : ids.shape[1]]
        for i in range(self.n_layer):
            x = getattr(self, f"layer_{i + 1}")(x)
        return self.unembed(self.last(x))


class Idle(PerHead):
    """With a bias of the head that is zero, and layers that are never called."""

    def __init__(self, a: Any) -> None:
        super().__init__(a)
        self.unembed = nn.Linear(a.n_embd, a.vocab_size)
        nn.init.zeros_(self.unembed.bias)
        self.pooler = nn.Linear(a.n_embd, a.n_embd)


def loaded(a: Any) -> Model:
    """Queries, keys and values from c_attn of Hugging Face's file, in this model's own names and layout."""
    model = Model(a)
    with safe_open(os.environ["PLAIN_WEIGHTS"], "pt") as file:
        prefix = "transformer." if "transformer.wte.weight" in file.keys() else ""  # noqa: SIM118  # not a dict

        def load(parameter: Tensor, value: Tensor) -> None:
            parameter.data.copy_(value.reshape(parameter.shape))

        def read(name: str) -> Tensor:
            tensor: Tensor = file.get_tensor(prefix + name)
            return tensor

        load(model.token_table.weight, read("wte.weight"))
        load(model.unembed.weight, read("wte.weight"))
        load(model.position_table, read("wpe.weight"))
        load(model.last.gamma, read("ln_f.weight"))
        load(model.last.beta, read("ln_f.bias"))
        for i, layer in enumerate(model.blocks):
            weights, biases = read(f"h.{i}.attn.c_attn.weight").chunk(3, 1), read(f"h.{i}.attn.c_attn.bias").chunk(3)
            for linear, weight, bias in zip(
                (layer.sa.W_query, layer.sa.W_key, layer.sa.W_value), weights, biases, strict=True
            ):
                load(linear.weight, weight.t())
                load(linear.bias, bias)
            for linear, name in (
                (layer.sa.W_output, "attn.c_proj"),
                (layer.ffwd.net[0], "mlp.c_fc"),
                (layer.ffwd.net[2], "mlp.c_proj"),
            ):
                load(linear.weight, read(f"h.{i}.{name}.weight").t())
                load(linear.bias, read(f"h.{i}.{name}.bias"))
            for norm, name in ((layer.norm_a, "ln_1"), (layer.norm_b, "ln_2")):
                load(norm.gamma, read(f"h.{i}.{name}.weight"))
                load(norm.beta, read(f"h.{i}.{name}.bias"))
    return model


class Lecture(PerHead):
    """With ReLU, and projections without biases."""

    def __init__(self, a: Any) -> None:
        super().__init__(a)
        for layer in self.blocks:
            layer.ffwd.net[1] = nn.ReLU()
            for head in layer.sa.heads:
                head.key, head.query, head.value = (
                    nn.Linear(a.n_embd, a.n_embd // a.n_head, bias=False) for _ in "qkv"
                )


class Hidden(Model):
    """Answers with hidden states, and leaves the head to the caller; asks for targets, which it does not use."""

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        x = self.token_table(ids) + self.position_table[:, : ids.shape[1]]
        hidden: Tensor = self.last(self.blocks(x))
        return hidden
