"""Mistakes between modules: the order of layers, positions, the sum of embeddings, the final norm, the residuals."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from gpt2x.checkpoints.names import dtype_name
from gpt2x.model.gpt2 import Transformer
from gpt2x.parity.causes import Cause, Kind
from gpt2x.parity.measures import ROUNDED
from gpt2x.parity.mistakes import mistakes_in
from gpt2x.parity.mistakes.mistake import Around, Forward, Mistake
from gpt2x.parity.mistakes.rounding import round_output


@dataclass(frozen=True)
class _WrongWiring:
    """A wrong way to connect modules: an entry of the list below."""

    kind: Kind
    text: str
    changes: Callable[[Transformer], dict[nn.Module, Forward]]
    """Transformer -> changes around the forward functions of its modules; see Around."""
    rounds: bool = False


def _times(factor: float) -> Forward:
    return lambda embed, ids: embed(ids) * factor


def _nothing(embed: Forward, ids: Tensor) -> Tensor:
    return torch.zeros_like(embed(ids))


def _sinusoids(positions: Tensor, width: int, by_halves: bool, base: float) -> Tensor:
    """[..., width]: sines and cosines (arXiv:1706.03762, section 3.5), in two halves or in turn."""
    places = torch.arange(0, width, 2, dtype=torch.float64, device=positions.device)
    angles = positions[..., None] * base ** (-places / width)
    both = torch.cat([angles.sin(), angles.cos()], -1)
    return (both if by_halves else both.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2))[..., :width]


# A table of sines that was computed in float32 is this close to one in float64.
_FLOAT32 = 1e-4
_SINUSOIDS = {"in turn": False, "in two halves": True}
_BASE = 10000.0


def _sinusoidal(how: str, base: float = _BASE, off: Tensor | None = None) -> _WrongWiring:
    """`off` is added, so that the table is one that was computed in a smaller dtype."""

    def change(t: Transformer) -> dict[nn.Module, Forward]:
        def table(embed: Forward, p: Tensor) -> Tensor:
            y = _sinusoids(p, t.config.n_embd, _SINUSOIDS[how], base).to(embed(p))
            return y if off is None or off.shape[-2] != y.shape[-2] else y + off

        return {t.wpe: table}

    other_base = "" if base == _BASE else f", to the base {base:.12g}"
    rounded = "" if off is None else ", computed in float32"
    return _WrongWiring(
        Kind.EMBEDDING, f"sinusoidal positions instead of wpe: sines and cosines {how}{other_base}{rounded}", change
    )


def _base_of(table: Tensor, by_halves: bool) -> float:
    """The base of a table of sines and cosines [T, C], to four digits; NaN if it is none, or too small to tell."""
    T, C = table.shape
    if T < 2 or C < 4 or not abs(table[1, 0].item() - math.sin(1)) < _FLOAT32:
        return math.nan
    sine = table[1, 1 if by_halves else 2].item()  # of base ** (-2 / C)
    return float(f"{math.asin(sine) ** (-C / 2):.4g}") if 0 < sine < 1 else math.nan


def _positions(text: str, move: Callable[[Tensor], Tensor]) -> _WrongWiring:
    """wpe looks up other positions, the last one for those beyond its end."""
    return _WrongWiring(
        Kind.POSITIONS,
        text,
        lambda t: {t.wpe: lambda embed, p: embed(move(p).clamp(0, t.config.n_positions - 1))},
    )


def _scaled(how: str, power: float) -> tuple[_WrongWiring, ...]:
    """Token embedding, position embedding or both, times n_embd ** power."""

    def factor(t: Transformer) -> float:
        return math.sqrt(t.config.n_embd) if power == 0.5 else t.config.n_embd**power

    return (
        _WrongWiring(Kind.EMBEDDING_SCALE, f"embedding {how}", lambda t: {t.wte: _times(factor(t))}),
        _WrongWiring(Kind.EMBEDDING_SCALE, f"position embedding {how}", lambda t: {t.wpe: _times(factor(t))}),
        _WrongWiring(
            Kind.EMBEDDING_SCALE,
            f"sum of the embeddings {how}",
            lambda t: {t.wte: _times(factor(t)), t.wpe: _times(factor(t))},
        ),
    )


def _rounding(half: torch.dtype) -> tuple[_WrongWiring, ...]:
    """Hidden states that pass through a smaller dtype between modules."""
    name = dtype_name(half)

    def output_of(*modules: nn.Module) -> dict[nn.Module, Forward]:
        return {module: partial(round_output, half=half) for module in modules}

    return (
        _WrongWiring(Kind.ROUNDING, f"embeddings rounded to {name}", lambda t: output_of(t.drop), rounds=True),
        _WrongWiring(Kind.ROUNDING, f"final hidden states rounded to {name}", lambda t: output_of(t.ln_f), rounds=True),
        _WrongWiring(
            Kind.ROUNDING,
            f"residual stream rounded to {name} between all layers",
            lambda t: output_of(*t.h),
            rounds=True,
        ),
        _WrongWiring(
            Kind.ROUNDING, f"residual stream rounded to {name} after h.0", lambda t: output_of(t.h[0]), rounds=True
        ),
    )


IN_WIRING: tuple[_WrongWiring, ...] = (
    _positions("positions shifted: they begin at 1, not at 0", lambda p: p + 1),
    _positions("positions shifted: the first two are both 0", lambda p: p - 1),
    _positions("positions shifted: they begin at 2 (padding_idx + 1)", lambda p: p + 2),
    _positions("positions all 0", lambda p: p * 0),
    _positions("positions counted from the end", lambda p: p.flip(-1)),
    _WrongWiring(Kind.POSITIONS_MISSING, "position embedding left out", lambda t: {t.wpe: _nothing}),
    *map(_sinusoidal, _SINUSOIDS),
    _WrongWiring(Kind.EMBEDDING, "position embedding added twice", lambda t: {t.wpe: _times(2.0)}),
    _WrongWiring(Kind.EMBEDDING, "token embedding left out", lambda t: {t.wte: _nothing}),
    _WrongWiring(Kind.EMBEDDING, "token embedding added twice", lambda t: {t.wte: _times(2.0)}),
    *_scaled("scaled by sqrt(n_embd)", 0.5),
    *_scaled("divided by sqrt(n_embd)", -0.5),
    _WrongWiring(Kind.FINAL_NORM_SKIPPED, "norm skipped: ln_f", lambda t: {t.ln_f: lambda _, x: x}),
    _WrongWiring(
        Kind.LAYERS_UNCHAINED,
        "layers not chained: each gets the embeddings, and only the last one counts",
        lambda t: {block: lambda _, x, *rest: x for block in t.h[:-1]},
    ),
    _WrongWiring(Kind.NORM_TOO_MANY, "ln_f applied twice", lambda t: {t.ln_f: lambda norm, x: norm(norm(x))}),
    _WrongWiring(
        Kind.NORM_TOO_MANY,
        "norm of the embeddings that GPT-2 has not: ln_f",
        lambda t: {t.drop: lambda _, x: t.ln_f(x)},
    ),
    *(mistake for half in ROUNDED for mistake in _rounding(half)),
)


def wiring_mistakes(transformer: Transformer, calls: list[int], inside: bool) -> Iterator[Mistake]:
    """Mistakes between modules, and then those that every block makes alike.

    `calls` are the indices of the blocks that the subject runs, in its order; empty if they are not known. With
    `inside`, the mistakes of blocks include those of their parts: for subjects whose modules cannot be examined in
    isolation.
    """
    layers = list(range(len(transformer.h)))
    if calls and calls != layers:
        ran = ", ".join(f"h.{i}" for i in calls)
        how = "layers out of order" if sorted(calls) == layers else "layers skipped or repeated"
        yield Mistake(Cause(f"{how}: {ran}", kind=Kind.LAYER_ORDER), {}, (transformer, calls))
    yield from (_made_in(transformer, wrong) for wrong in IN_WIRING)
    for same in zip(*(mistakes_in(block, parts=inside) for block in transformer.h), strict=True):
        forwards = {module: forward for each in same for module, forward in each.forwards.items()}
        yield replace(same[0], forwards=forwards)


def without_positions(transformer: Transformer) -> Mistake:
    """Nothing in the place of wpe, so that what else is added shows."""
    return _made_in(
        transformer, _WrongWiring(Kind.POSITIONS_MISSING, "position embedding left out", lambda t: {t.wpe: _nothing})
    )


def sinusoids(transformer: Transformer, table: Tensor) -> Iterator[tuple[Mistake, Callable[[Tensor], Mistake]]]:
    """Mistakes with sinusoidal positions that may give a table [T, C], each with one whose table is off by a tensor."""
    for how, by_halves in _SINUSOIDS.items():
        base = _base_of(table, by_halves)
        if math.isfinite(base):
            yield _made_in(transformer, _sinusoidal(how, base)), partial(_sinusoids_off, transformer, how, base)


def _sinusoids_off(transformer: Transformer, how: str, base: float, off: Tensor) -> Mistake:
    return _made_in(transformer, _sinusoidal(how, base, off))


def _made_in(transformer: Transformer, wrong: _WrongWiring) -> Mistake:
    changes, cause = wrong.changes(transformer).items(), Cause(wrong.text, kind=wrong.kind)
    return Mistake(cause, {module: Around(module, change) for module, change in changes}, rounds=wrong.rounds)
