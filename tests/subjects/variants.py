"""GPT-2s that ask for something of their own: a text of one length, a larger vocabulary; and other architectures."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from plain import GPT2, Attention, mistake
from styles import Layer, Model, attend
from torch import Tensor, nn
from torch.nn import functional as F


class FullContext(Model):
    """Its positions are not cut, so that it accepts texts of n_positions only."""

    def forward(self, ids: Tensor) -> Tensor:
        return self.unembed(self.last(self.blocks(self.token_table(ids) + self.position_table)))


def full_mask(a: Any) -> GPT2:
    """Its mask is not cut; and its scores are not scaled."""
    later = torch.ones(a.n_positions, a.n_positions, dtype=torch.bool).triu(1)
    make = mistake(Attention, mask=lambda m, scores: scores.masked_fill(later, -torch.inf), scale=lambda m, x: x)
    return make(a)


class Padded(GPT2):
    """It has as many rows for tokens as the next multiple of 64, and looks their number up."""

    def __init__(self, a: Any) -> None:
        tokens = -(-a.vocab_size // 64) * 64
        names = ("n_positions", "n_embd", "n_head", "n_layer")
        super().__init__(SimpleNamespace(vocab_size=tokens, **{name: getattr(a, name) for name in names}))
        self.config = {"vocab_size": tokens}

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids).view(*ids.shape, self.config["vocab_size"])


class LossFirst(Model):
    def forward(self, ids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = super().forward(ids)
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten()), logits


class OnRequest(Model):
    def forward(self, ids: Tensor, targets: Tensor, return_logits: bool | None = None) -> tuple[Tensor | None, Tensor]:
        logits = super().forward(ids)
        return logits if return_logits else None, F.cross_entropy(logits.flatten(0, 1), targets.flatten())


@dataclass
class Output:
    cache: list[Tensor]
    output: Tensor


class InObject(Model):
    def forward(self, ids: Tensor) -> Output:
        return Output([], super().forward(ids))


class Gated(nn.Module):
    """GEGLU with biases."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.w1, self.w3, self.w2 = nn.Linear(width, 80), nn.Linear(width, 80), nn.Linear(80, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.gelu(self.w1(x)) * self.w3(x))


class Grouped(nn.Module):
    """One key and one value for all queries, and norms of keys and queries."""

    def __init__(self, width: int, n_head: int) -> None:
        super().__init__()
        self.n_head, size = n_head, width // n_head
        self.wq, self.wo = nn.Linear(width, width), nn.Linear(width, width)
        self.wk, self.wv = nn.Linear(width, size), nn.Linear(width, size)
        self.q_norm, self.k_norm = (nn.RMSNorm(size, eps=1e-6) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            f(x).unflatten(-1, (n, -1)).transpose(1, 2) for f, n in ((self.wq, self.n_head), (self.wk, 1), (self.wv, 1))
        )
        return self.wo(attend(self.q_norm(q), self.k_norm(k), v).transpose(1, 2).flatten(2))


class Modern(Model):
    attention, mlp = Grouped, Gated


class WithoutFirst(Layer):
    """A norm that is made and not called; neither name says which of the two it is."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.sa(x)
        return x + self.ffwd(self.norm_b(x))


class WithoutSecond(Layer):
    def forward(self, x: Tensor) -> Tensor:
        x = x + self.sa(self.norm_a(x))
        return x + self.ffwd(x)


class WithoutAttention(Layer):
    def forward(self, x: Tensor) -> Tensor:
        return x + self.ffwd(self.norm_b(x))


def of_layers(kind: type[Layer]) -> Callable[[Any], Model]:
    def make(a: Any) -> Model:
        model = Model(a)
        for layer in model.blocks:
            layer.__class__ = kind
        return model

    return make


first_norm_not_called, second_norm_not_called = of_layers(WithoutFirst), of_layers(WithoutSecond)
attention_not_called = of_layers(WithoutAttention)


def positions_to_another_base(a: Any) -> GPT2:
    """The step between even numbers is counted twice: 10000 ** (2 i / width) for i = 0, 2, 4, ..."""
    return mistake(GPT2, embed=lambda m, ids, p: m.wte(ids) + table(p, m.wte.embedding_dim))(a)


def table(positions: Tensor, width: int) -> Tensor:
    even = torch.arange(0, width, 2)
    angles = positions[:, None] / 10000 ** (2 * even / width)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
