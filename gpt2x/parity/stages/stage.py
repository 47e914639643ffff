"""What a stage is: a name, what it needs, and a function that compares."""

from collections.abc import Callable
from dataclasses import dataclass, field

from gpt2x.config.tasks.validate import Stage
from gpt2x.parity.checks import Check, skipped
from gpt2x.parity.comparison import Comparison
from gpt2x.parity.rows import SideBySideRow


@dataclass(frozen=True)
class Need:
    """Something without which a stage is skipped."""

    is_met: Callable[[Comparison], bool]
    otherwise: str
    """The note of the skipped check."""


@dataclass(frozen=True)
class StageResult:
    """What a stage found."""

    checks: list[Check]
    side_by_side: list[SideBySideRow] = field(default_factory=list)
    """The texts of both models, from the stage generation."""


@dataclass(frozen=True)
class ParityStage:
    """One stage of a validation."""

    name: Stage
    compare: Callable[[Comparison], StageResult]
    """Raises SubjectError if the subject's own code fails."""
    needs: tuple[Need, ...] = ()
    asks_oracle: bool = False
    """Whether the oracle must be asked for answers that only this stage uses."""

    def run(self, c: Comparison) -> StageResult:
        """The stage's result: one skipped check if a need is not met. Raises SubjectError as `compare` does."""
        for need in self.needs:
            if not need.is_met(c):
                return StageResult([skipped(self.name, need.otherwise)])
        return self.compare(c)


def only_ours(why: str) -> Need:
    """The subject is gpt2x's own model."""
    return Need(lambda c: c.ours, why)


def needs_oracle(why: str) -> Need:
    """transformers can be asked during the stage: a saved record is not enough."""
    return Need(lambda c: c.live, why)
