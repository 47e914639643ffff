"""GPT-2s that ask for something of their own: a text of one length, a larger vocabulary; and other architectures."""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import torch
from plain import GPT2, Attention, mistake
from styles import ExactSequence, Layer, Model, Projections, attend
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


class MorePositions(GPT2):
    """It has a row for one more position."""

    def __init__(self, a: Any) -> None:
        names = ("vocab_size", "n_embd", "n_head", "n_layer")
        super().__init__(SimpleNamespace(n_positions=a.n_positions + 1, **{name: getattr(a, name) for name in names}))


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


class OneNorm(Layer):
    """The same norm twice."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.sa(self.norm_a(x))
        return x + self.ffwd(self.norm_a(x))


def norm_used_twice(a: Any) -> Model:
    model = of_layers(OneNorm)(a)
    for layer in model.blocks:
        del layer.norm_b
    return model


first_norm_not_called, second_norm_not_called = of_layers(WithoutFirst), of_layers(WithoutSecond)
attention_not_called = of_layers(WithoutAttention)


class DropoutWithin(nn.Module):
    """GPT-2 has its dropout behind both matrices, where it is less wide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.act, self.dropout = nn.GELU("tanh"), nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(self.dropout(self.act(self.wide(x))))


class NormBehind(Layer):
    def forward(self, x: Tensor) -> Tensor:
        x = self.norm_b(x + self.sa(x))
        return self.norm_a(x + self.ffwd(x))


class PostNorm(Model):
    mlp = DropoutWithin

    def __init__(self, a: Any) -> None:
        super().__init__(a)
        for layer in self.blocks:
            layer.__class__ = NormBehind
        self.unembed = nn.Linear(a.n_embd, a.vocab_size)

    def sample(self, ids: Tensor) -> Tensor:
        return F.softmax(self(ids)[:, -1], -1).multinomial(1)


class Turned(Projections):
    """Rotates queries and keys by a table of complex numbers."""

    def __init__(self, width: int, n_head: int) -> None:
        super().__init__(width, n_head)
        size = width // n_head
        angles = torch.outer(torch.arange(32).float(), 1.0 / 10000 ** (torch.arange(0, size, 2).float() / size))
        self.register_buffer("turns", torch.polar(torch.ones_like(angles), angles))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            f(x).unflatten(-1, (self.n_head, -1)).transpose(1, 2) for f in (self.W_query, self.W_key, self.W_value)
        )
        return self.W_output(attend(self.turn(q), self.turn(k), v).transpose(1, 2).flatten(2))

    def turn(self, x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * self.turns[: x.shape[-2]]).flatten(-2).type_as(x)


class Rotary(Model):
    """Reads weights in float32 when it is made."""

    attention = Turned

    def __init__(self, a: Any) -> None:
        super().__init__(a)
        file = BytesIO()
        torch.save(
            {name: torch.from_numpy(x.numpy().astype("float32")) for name, x in self.token_table.state_dict().items()},
            file,
        )
        file.seek(0)
        self.token_table.load_state_dict(torch.load(file))


class Odd(nn.Module):
    """Without biases, and with a step of its own behind the heads."""

    def __init__(self, width: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.qw, self.kw, self.vw = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (self.n_head, -1)).transpose(1, 2) for f in (self.qw, self.kw, self.vw))
        return self.out(attend(q, k, v).sin().transpose(1, 2).flatten(2))


class WithOdd(Model):
    attention = Odd


class OneHead(Projections):
    """Its heads are not split; what makes one of them, without a dimension for them, transposes positions."""

    def forward(self, x: Tensor) -> Tensor:
        y = attend(self.W_query(x), self.W_key(x), self.W_value(x))
        return self.W_output(y.transpose(1, 2).reshape(x.shape))


class WithOneHead(Model):
    attention = OneHead


class LayerInObject(Layer):
    def forward(self, x: Tensor) -> Output:
        return Output([], super().forward(x))


class ObjectsBetween(Model):
    """Its layers answer with objects."""

    mlp = ExactSequence

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token_table(ids) + self.position_table[:, : ids.shape[1]]
        for layer in self.blocks:
            x = layer(x).output
        return self.unembed(self.last(x))


def objects_between(a: Any) -> Model:
    model = ObjectsBetween(a)
    for layer in model.blocks:
        layer.__class__ = LayerInObject
    return model


def positions_to_another_base(a: Any) -> GPT2:
    """The step between even numbers is counted twice: 10000 ** (2 i / width) for i = 0, 2, 4, ..."""
    return mistake(GPT2, embed=lambda m, ids, p: m.wte(ids) + table(p, m.wte.embedding_dim))(a)


def table(positions: Tensor, width: int) -> Tensor:
    even = torch.arange(0, width, 2)
    angles = positions[:, None] / 10000 ** (2 * even / width)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
