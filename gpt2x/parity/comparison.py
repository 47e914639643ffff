"""The two sides of a validation."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch

from gpt2x.checkpoints.load import Checkpoint
from gpt2x.model.gpt2 import GPT2
from gpt2x.parity.measures import RELATIVE_TOLERANCE
from gpt2x.parity.reference.record import Record
from gpt2x.parity.subject.examined import Examined
from gpt2x.parity.subject.idle import idle_parameters
from gpt2x.parity.subject.local import LocalSubject
from gpt2x.parity.trace import Trace


class Compared(Protocol):
    """What trials of mistakes need to know of a comparison."""

    @property
    def record(self) -> Record:
        """The reference's answers."""

    @property
    def tolerance(self) -> float:
        """The largest relative difference of two results of the same function."""


@dataclass
class Comparison:
    """A subject beside the reference's record."""

    record: Record
    checkpoint: Checkpoint
    """gpt2x's own model and tokenizer, with the weights that the record was made with."""
    exact: Examined
    """The subject in the record's exact dtype."""
    subject: Examined
    """The subject in the dtype asked for; the same object if that is the exact dtype."""
    dtype: str
    """The dtype asked for: the record's, or int8, which transformers does not have: the record is then float32's."""
    live: bool
    """Whether transformers can be asked; False if the record was read from a file."""
    ours: bool
    """Whether the subject is gpt2x's own model."""
    propagated: Trace = field(default_factory=Trace)
    """One forward pass of the exact subject on the prompt; filled in by the stage layers."""
    isolated: dict[str, torch.Tensor] = field(default_factory=dict)
    """Site -> what the exact subject's module answers to the reference's input; filled in by the stage layers."""

    of_another_kind: list[str] = field(default_factory=list)
    """Sites of modules that are no counterparts of the reference's; filled in by the stage layers."""

    @cached_property
    def idle(self) -> dict[str, str]:
        """Parameters of the subject that the reference lacks -> why they change nothing, for those that do not."""
        return idle_parameters(self.exact, self.ids)

    @property
    def tolerance(self) -> float:
        """The largest relative difference at which two results in the exact dtype are those of the same function."""
        return RELATIVE_TOLERANCE[self.record.exact]

    @property
    def sites(self) -> list[str]:
        """The subject's modules that the reference has as well."""
        named = [site for site in self.exact.parts.sites if site in self.record.outputs]
        return [site for site in named if site not in self.of_another_kind]

    @property
    def ids(self) -> torch.Tensor:
        """The prompt, [1, T]."""
        return torch.tensor([self.record.facts.ids])


def gpt2_of(subject: Examined) -> GPT2:
    """The model of a subject that is gpt2x's own."""
    assert isinstance(subject, LocalSubject)
    assert isinstance(subject.module, GPT2)
    return subject.module
