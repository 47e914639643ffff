"""The subject with gpt2x's own modules in the place of wrong ones, so that the next divergence shows."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from gpt2x.model.gpt2 import GPT2
from gpt2x.parity.comparison import Comparison
from gpt2x.parity.diagnosis.dropout import WithoutDropout
from gpt2x.parity.diagnosis.own import module_at
from gpt2x.parity.subject.names import portion_of, whole_site
from gpt2x.parity.trace import Trace, isolate, trace


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
        logits: list[Tensor] = []
        with self._repairs():
            seen = trace(lambda: logits.append(self._logits()), self._sites, self.given)
        seen.inputs, seen.outputs = (
            {site: x.cpu() for site, x in each.items()} for each in (seen.inputs, seen.outputs)
        )
        return seen, logits[0]

    def isolated(self) -> dict[str, Tensor]:
        """Site -> the output of its module on the reference's input, on the CPU."""
        with self._repairs():
            outputs = isolate(self._logits, self._sites, self.c.record.inputs)
        return {site: output.cpu() for site, output in outputs.items()}

    @property
    def _sites(self) -> dict[str, nn.Module]:
        return {site: module for site, module in self.c.exact.sites.items() if site in self.c.record.outputs}

    def _logits(self) -> Tensor:
        torch.manual_seed(self.seed)
        with torch.no_grad(), nullcontext() if self.dropout else WithoutDropout():
            return self.c.exact.logits(self.c.ids(self.c.exact))[0].cpu()

    @contextmanager
    def _repairs(self) -> Iterator[None]:
        handles = [
            self.c.exact.sites[site].register_forward_hook(self._right_output(site), with_kwargs=True)
            for site in self.replaced
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _right_output(self, site: str) -> Callable[..., Any]:
        module, expected = module_at(self.own, whole_site(site)[0]), self.c.record.inputs[site]

        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            x = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
            if x is None or x.numel() != expected.numel():
                return None
            y = portion_of(site, module(x.cpu().reshape(expected.shape).to(expected.dtype)))
            return _with_first(output, y.to(x.device))

        return hook


def _with_first(output: Any, tensor: Tensor) -> Any:
    """The output of a module with another tensor in the place of the first."""
    if isinstance(output, (tuple, list)) and output:
        return type(output)([_with_first(output[0], tensor), *output[1:]])
    if isinstance(output, Tensor) and output.numel() == tensor.numel():
        return tensor.reshape(output.shape)
    return tensor
