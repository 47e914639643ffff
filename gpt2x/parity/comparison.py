"""The two sides of a validation, and rows for parity.csv."""

from dataclasses import dataclass, field

import torch

from gpt2x.checkpoints.load import Checkpoint
from gpt2x.parity.measures import RELATIVE_TOLERANCE, status
from gpt2x.parity.reference.record import Record
from gpt2x.parity.rows import ParityRow
from gpt2x.parity.subject import Subject
from gpt2x.parity.trace import Trace

OURS = "gpt2x"  # the name of the subject that is no user's file


@dataclass
class Comparison:
    """A subject beside the reference's record."""

    record: Record
    checkpoint: Checkpoint
    """Of our own model, which mistakes are tried out on."""
    exact: Subject
    """In the record's exact dtype."""
    subject: Subject
    """In the dtype asked for; the same object where that is the exact one."""
    dtype: str
    """The dtype asked for: the record's, or int8, which transformers does not have and its float32 stands for."""
    live: bool
    """Whether transformers is at hand, or only what was recorded of it."""
    propagated: Trace = field(default_factory=Trace)
    """Of the exact subject, fed by itself; filled in by the stage layers."""
    isolated: dict[str, torch.Tensor] = field(default_factory=dict)
    """Outputs of the exact subject's modules on the reference's inputs; filled in by the stage layers."""

    @property
    def ours(self) -> bool:
        return self.exact.name == OURS

    @property
    def bar(self) -> float:
        """The largest relative difference of the same function."""
        return RELATIVE_TOLERANCE[self.record.exact]

    def ids(self, subject: Subject) -> torch.Tensor:
        """The prompt, [1, T], where the subject is."""
        return torch.tensor([self.record.facts.ids], device=device_of(subject))


def device_of(subject: Subject) -> torch.device:
    return next(subject.module.parameters()).device


def checked(
    stage: str, site: str, metric: str, value: float, tolerance: float, note: str = "", mode: str = ""
) -> ParityRow:
    """A row that is ok if the value is at most the tolerance."""
    return ParityRow(stage, site, mode, metric, value, tolerance, status(value, tolerance), note)


def stated(stage: str, site: str, metric: str, value: float, note: str = "", mode: str = "") -> ParityRow:
    """A row that only says a number, and complains if it is none."""
    return ParityRow(stage, site, mode, metric, value, None, status(value, float("inf")), note)


def skipped(stage: str, why: str, site: str = "", mode: str = "", metric: str = "") -> ParityRow:
    return ParityRow(stage, site, mode, metric, None, None, "skipped", why)


def failed(stage: str, site: str, metric: str, kind: str, note: str, mode: str = "") -> ParityRow:
    """A row for what cannot be compared: missing, unexpected, shape_mismatch or mismatch."""
    return ParityRow(stage, site, mode, metric, None, None, kind, note)
