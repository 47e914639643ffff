"""Whether the engines generate the same tokens as the baseline."""

from collections.abc import Callable
from dataclasses import dataclass

from gpt2x.benchmark.engines import Variant
from gpt2x.benchmark.measured import Measured, Turn

_TIE = 1e-3  # in units of logits: rounding in float32 can reverse a difference as small as this
_BASELINES = (Variant("transformers", "float32"), Variant("gpt2x", "float32"))


@dataclass(frozen=True)
class Difference:
    """A row that an engine in float32 continues with other tokens than the baseline."""

    variant: Variant
    batch: int
    row: int
    where: int
    """The index of the first new token that differs."""
    margin: float
    """The difference between the baseline's two largest logits there."""

    @property
    def tie(self) -> bool:
        return self.margin < _TIE


def find_baseline(found: list[Measured]) -> Measured | None:
    """transformers in float32, else gpt2x in float32, else None."""
    return next((each for variant in _BASELINES for each in found if each.variant == variant), None)


def same_tokens(turns: list[Turn], baseline: list[Turn]) -> float:
    """The share of the new tokens that come before a row's first difference from the baseline, 0 to 1."""
    shares = [
        _same(ours, theirs) / len(theirs)
        for turn, other in zip(turns, baseline, strict=True)
        for ours, theirs in zip(turn.tokens, other.tokens, strict=True)
    ]
    return sum(shares) / len(shares)


def differences(
    found: list[Measured], baseline: Measured, prompts: list[list[int]], margin: Callable[[list[int]], float]
) -> list[Difference]:
    """The rows of the engines in float32 that differ from the baseline's.

    A row that differs in the same place in several rounds counts once. `margin` is the baseline's
    method; it is called with the tokens before the difference.
    """
    places = {
        (each.variant, batch, row, where): prompts[row] + theirs[:where]
        for each in found
        if each.variant.dtype == "float32"
        for batch, turns in each.turns.items()
        for turn, other in zip(turns, baseline.turns[batch], strict=True)
        for row, (ours, theirs) in enumerate(zip(turn.tokens, other.tokens, strict=True))
        if (where := _same(ours, theirs)) < len(theirs)
    }
    return [Difference(*place, margin(ids)) for place, ids in places.items()]


def _same(ours: list[int], theirs: list[int]) -> int:
    """The number of tokens before the first difference."""
    pairs = enumerate(zip(ours, theirs, strict=True))
    return next((i for i, (one, other) in pairs if one != other), len(theirs))
