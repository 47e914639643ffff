"""What a diagnosis says."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from gpt2x.parity.causes import Cause
from gpt2x.parity.checks import Check
from gpt2x.parity.mistakes.mistake import Mistake


@dataclass(frozen=True)
class Divergence:
    """One place where the subject departs from the reference, and why."""

    site: str
    """`h.0.mlp`; `input of h.1` if a module receives wrong values; `tokenizer: newlines` outside the model."""
    check: Check
    """The check that shows it."""
    cause: Cause
    mistake: Mistake | None = None
    """How gpt2x's own model makes the same mistake; None if it cannot."""
    tensor: str = ""
    """The wrong tensor, if the cause is in the weights and not in the code."""
    right_input: Tensor | None = None
    """What the module should receive, where the cause of a wrong input cannot be made in gpt2x's own model."""
    random: bool = False
    """Whether the cause is dropout, without which the subject is examined further."""

    @property
    def place(self) -> str:
        """The tensor or else the site: what the cause is about."""
        return self.tensor or self.site

    @property
    def cause_in_full(self) -> Cause:
        """The cause, with the tensor that it is about."""
        return replace(self.cause, text=f"{self.cause.text}: {self.tensor}") if self.tensor else self.cause


def shown_with(found: Sequence[Divergence], replaced: Collection[str]) -> list[Divergence]:
    """Those that still show where gpt2x's own modules are in the place of the subject's at some sites."""
    return [each for each in found if not any(each.site.startswith(f"{whole}.") for whole in replaced)]


@dataclass(frozen=True)
class CommonCause:
    """A cause with all places that it holds at: one row of causes.csv."""

    sites: list[str]
    """`h.*.mlp.act` for all layers, `h.0.attn` and `h.2..4.attn` for some."""
    cause: Cause
    check: Check
    """The check that shows it at the first of its places."""
    difference_before: float | None = None
    """How far the subject's logits are from those that the causes before this one explain, relative to the largest."""
    difference_after: float | None = None
    """The same with this cause explained as well; None if it was not computed."""


@dataclass(frozen=True)
class Diagnosis:
    """Where a failed validation diverges from the reference, and why: the first place, and all causes."""

    site: str
    check: Check
    cause: Cause
    """These three are of the first divergence; see Divergence."""
    causes: list[CommonCause] = field(default_factory=list)
    """All causes in the order in which they were found: in modules, between modules, at the end."""
    architecture: list[str] = field(default_factory=list)
    """The parts of another architecture that are among the causes."""
