"""The subject with gpt2x's own modules in the place of wrong ones, so that the next divergence shows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from gpt2x.model.gpt2 import GPT2
from gpt2x.parity.comparison import Comparison
from gpt2x.parity.diagnosis.own import module_at
from gpt2x.parity.subject.examined import Changes
from gpt2x.parity.subject.names import portion_of, whole_site
from gpt2x.parity.trace import Trace


@dataclass(frozen=True)
class RepairedSubject:
    """Runs the exact subject on the prompt. All of it raises SubjectError if the subject's own code fails."""

    c: Comparison
    own: GPT2
    """gpt2x's own model, which makes no mistake while the subject runs."""
    replaced: frozenset[str] = frozenset()
    """Sites whose modules answer what gpt2x's own module answers to the same input."""
    given: Mapping[str, Tensor] = field(default_factory=dict)
    """Site -> what it computes on, whatever it receives."""
    dropout: bool = True
    """Whether torch's dropout functions do what they should."""
    seed: int = 0
    """Of torch's random numbers, in each forward pass."""

    def replacing(self, *sites: str) -> "RepairedSubject":
        return replace(self, replaced=self.replaced | {*sites})

    def restoring(self, *sites: str) -> "RepairedSubject":
        return replace(self, replaced=self.replaced - {*sites})

    def giving(self, site: str, right: Tensor) -> "RepairedSubject":
        return replace(self, given={**self.given, site: right})

    def logits(self) -> Tensor:
        """The prompt's logits, [T, V], on the CPU."""
        return self.trace()[1]

    def trace(self) -> tuple[Trace, Tensor]:
        """The inputs and outputs of all modules, on the CPU, and the prompt's logits [T, V]."""
        seen, logits = self.c.exact.trace(self.c.ids, self.c.sites, self._changes)
        return seen, logits[0]

    def isolated(self) -> dict[str, Tensor]:
        """Site -> the output of its module on the reference's input, on the CPU."""
        return self.c.exact.isolate(self.c.ids, self.c.record.inputs, self.c.sites, self._changes)

    @property
    def _changes(self) -> Changes:
        replaced = {site: self._right_output(site) for site in self.replaced}
        return Changes(self.given, replaced, self.dropout, self.seed)

    def _right_output(self, site: str) -> Callable[[Tensor], Tensor | None]:
        module, expected = module_at(self.own, whole_site(site)[0]), self.c.record.inputs[site]

        def answer(x: Tensor) -> Tensor | None:
            if x.numel() != expected.numel():
                return None
            with torch.no_grad():
                return portion_of(site, module(x.reshape(expected.shape).to(expected.dtype)))

        return answer
