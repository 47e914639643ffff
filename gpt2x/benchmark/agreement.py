"""Whether the engines generate the same tokens."""

from dataclasses import dataclass

from gpt2x.benchmark.measure import Measured, Turn

_TIE = 1e-3  # of logits: what the rounding of float32 may turn


@dataclass(frozen=True)
class Difference:
    """A row that an engine continues otherwise than the reference."""

    name: tuple[str, str]
    """Engine and dtype."""
    batch: int
    row: int
    where: int
    """Among the new tokens, the first that is not the same."""
    margin: float
    """There, between the reference's two largest logits."""

    @property
    def tie(self) -> bool:
        return self.margin < _TIE


def reference(found: list[Measured]) -> Measured | None:
    """transformers in float32, else gpt2x in float32."""
    names = [("transformers", "float32"), ("gpt2x", "float32")]
    return next((each for name in names for each in found if each.name == name), None)


def same_tokens(turns: list[Turn], references: list[Turn]) -> float:
    """Of the new tokens, the share before a row's first difference."""
    shares = [
        _same(ours, theirs) / len(theirs)
        for turn, other in zip(turns, references, strict=True)
        for ours, theirs in zip(turn.tokens, other.tokens, strict=True)
    ]
    return sum(shares) / len(shares)


def differences(found: list[Measured], prompts: list[list[int]]) -> list[Difference]:
    """Of the engines in float32 from the reference; a row that differs alike in several rounds counts once."""
    expected = reference(found)
    if expected is None:
        return []
    seen: dict[tuple, Difference] = {}
    for each in found:
        for batch, turns in each.turns.items() if each.worker.dtype == "float32" else ():
            for turn, other in zip(turns, expected.turns[batch], strict=True):
                for row, (ours, theirs) in enumerate(zip(turn.tokens, other.tokens, strict=True)):
                    where = _same(ours, theirs)
                    key = (each.name, batch, row, where)
                    if where < len(theirs) and key not in seen:
                        margin = expected.worker.ask("margin", prompts[row] + theirs[:where])
                        seen[key] = Difference(*key, margin)
    return list(seen.values())


def _same(ours: list[int], theirs: list[int]) -> int:
    """Tokens before the first difference."""
    pairs = enumerate(zip(ours, theirs, strict=True))
    return next((i for i, (one, other) in pairs if one != other), len(theirs))
