"""What the stages and the diagnosis ask of a subject, whether it runs in this process or in one of its own."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from gpt2x.parity.trace import Trace


@dataclass(frozen=True)
class Parts:
    """The modules and parameters of a subject, under Hugging Face's names less the `transformer.` in front."""

    sites: list[str]
    """Its modules."""
    parameters: dict[str, torch.Size]
    """Parameter -> its shape, in the subject's own layout."""
    unexpected: list[str]
    """Parameters that the reference does not have."""
    n_parameters: int
    """The number of all numbers in them, where parameters that are tied count once."""
    untied_head: bool
    """Whether the head's weight is another parameter than wte's."""
    named_by_structure: list[list[str]]
    """The rules by which parts that the user gave no name to have theirs."""


@dataclass(frozen=True)
class Changes:
    """What is changed in a subject while it runs."""

    given: Mapping[str, Tensor] = field(default_factory=dict)
    """Site -> what its module computes on, whatever it receives."""
    replaced: Mapping[str, Callable[[Tensor], Tensor | None]] = field(default_factory=dict)
    """Site -> the function of the module's input that gives the output in its place; for None the output stays."""
    dropout: bool = True
    """Whether torch's dropout functions do what they should."""
    seed: int | None = None
    """Of torch's random numbers, in each forward pass; None to go on with them."""


UNCHANGED = Changes()


@dataclass(frozen=True)
class Gradient:
    """What is compared of the gradient of one parameter."""

    shape: torch.Size
    norm: float
    """Its L2 norm."""
    entries: Tensor
    """Some of its entries, as losses.sample() picks them."""


class Examined(Protocol):
    """A subject. All tensors that it takes and returns are on the CPU, and parameters are in Hugging Face's layout.

    All that runs the subject's code raises SubjectError if that fails.
    """

    @property
    def parts(self) -> Parts:
        """What it consists of."""

    @property
    def shapes(self) -> Mapping[str, torch.Size]:
        """The shapes of the reference's tensors."""

    @property
    def notes(self) -> list[str]:
        """What the user should know about how it is called and named, one line each."""

    @property
    def changes_input(self) -> bool:
        """Whether a call has changed the ids that it was given."""

    def seed(self, seed: int) -> None:
        """Seeds the random numbers that it draws."""

    def logits(self, input_ids: Tensor, nan_in: str = "") -> Tensor:
        """input_ids [B, T] -> logits [B, T, V], without gradients; with NaN in the place of a parameter, if named."""

    def trace(self, input_ids: Tensor, sites: Collection[str], changes: Changes = UNCHANGED) -> tuple[Trace, Tensor]:
        """The inputs and outputs of the modules at these sites in a forward pass, and its logits [B, T, V]."""

    def isolate(
        self, input_ids: Tensor, inputs: Mapping[str, Tensor], sites: Collection[str], changes: Changes = UNCHANGED
    ) -> dict[str, Tensor]:
        """Site -> the output of its module when it is given the reference's input."""

    def gradients(self, ids: list[int]) -> dict[str, Gradient] | None:
        """Of losses.loss_of(), by parameter, as tensors() has them; None if the loss has no gradient function.

        That of an untied head is added to wte's, as tying would.
        """

    def tensors(self) -> dict[str, Tensor]:
        """The parameters, three projections joined to one, the head left out."""

    def tensor(self, name: str) -> Tensor:
        """One of the names in parts.parameters."""
