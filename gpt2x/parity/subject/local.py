"""A subject that runs in this process."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from gpt2x.parity.answers import first_tensor, with_another
from gpt2x.parity.reference.losses import loss_of, one_thread, sample
from gpt2x.parity.subject.code import subject_code
from gpt2x.parity.subject.dropout import WithoutDropout
from gpt2x.parity.subject.examined import UNCHANGED, Changes, Gradient, Parts
from gpt2x.parity.subject.length import cut, filled
from gpt2x.parity.subject.module import Subject
from gpt2x.parity.subject.requests import own_requests
from gpt2x.parity.trace import Trace, isolate, trace


class LocalSubject:
    """Answers what the protocol Examined asks, with a model in this process, on any device."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._device = next(subject.module.parameters()).device

    @property
    def module(self) -> nn.Module:
        return self._subject.module

    @property
    def sites(self) -> Mapping[str, nn.Module]:
        return self._subject.sites

    @cached_property
    def parts(self) -> Parts:
        subject = self._subject
        return Parts(
            sites=list(subject.sites),
            parameters={name: parameter.shape for name, parameter in subject.parameters.items()},
            unexpected=subject.unexpected(),
            n_parameters=subject.n_parameters,
            untied_head=subject.untied_head is not None,
            named_by_structure=subject.named_by_structure,
        )

    @property
    def shapes(self) -> Mapping[str, torch.Size]:
        return self._subject.shapes

    @property
    def notes(self) -> list[str]:
        return self._subject.notes

    @property
    def changes_input(self) -> bool:
        return self._subject.changes_input

    def seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    @torch.no_grad()
    def logits(self, input_ids: Tensor, nan_in: str = "") -> Tensor:
        with self._nan_in(nan_in):
            return self._subject.logits(input_ids.to(self._device)).cpu()

    def trace(self, input_ids: Tensor, sites: Collection[str], changes: Changes = UNCHANGED) -> tuple[Trace, Tensor]:
        logits: list[Tensor] = []
        T = input_ids.shape[1]
        with self._changed(changes, T):
            given = self._filled(changes.given)
            seen = trace(lambda: logits.append(self._run(input_ids, changes)), self._modules(sites), given)
        return Trace(self._cut(seen.inputs, T), self._cut(seen.outputs, T), seen.calls), logits[0]

    def isolate(
        self, input_ids: Tensor, inputs: Mapping[str, Tensor], sites: Collection[str], changes: Changes = UNCHANGED
    ) -> dict[str, Tensor]:
        T = input_ids.shape[1]
        with self._changed(changes, T):
            run = partial(self._run, input_ids, changes)
            return self._cut(isolate(run, self._modules(sites), self._filled(inputs)), T)

    def gradients(self, ids: list[int]) -> dict[str, Gradient] | None:
        subject = self._subject
        subject.module.requires_grad_(True)
        try:
            with one_thread(), torch.enable_grad():
                loss = loss_of(subject, ids, self._device)
                if not loss.requires_grad:
                    return None
                with subject_code(), own_requests(loss.dtype, loss.device):
                    loss.backward()
                found = subject.gradients()
                return {name: Gradient(each.shape, each.norm().item(), sample(each)) for name, each in found.items()}
        finally:
            subject.module.zero_grad(set_to_none=True)
            subject.module.requires_grad_(False)

    def tensors(self) -> dict[str, Tensor]:
        return _on_cpu(self._subject.tensors())

    def tensor(self, name: str) -> Tensor:
        return self._subject.in_layout(name).cpu()

    def _modules(self, sites: Collection[str]) -> dict[str, nn.Module]:
        return {site: module for site, module in self._subject.sites.items() if site in sites}

    def _filled(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Inputs of modules, as long as they are in the model, if it accepts one length only."""
        length = self._subject.length
        return tensors if length is None else {site: filled(tensor, length) for site, tensor in tensors.items()}

    def _cut(self, tensors: Mapping[str, Tensor], T: int) -> dict[str, Tensor]:
        """Inputs or outputs of modules for the first T positions, on the CPU."""
        length = self._subject.length
        on_cpu = _on_cpu(tensors)
        return on_cpu if length is None else {site: cut(tensor, T, length) for site, tensor in on_cpu.items()}

    def _run(self, input_ids: Tensor, changes: Changes) -> Tensor:
        if changes.seed is not None:
            torch.manual_seed(changes.seed)
        with nullcontext() if changes.dropout else WithoutDropout():
            return self.logits(input_ids)

    @contextmanager
    def _nan_in(self, name: str) -> Iterator[None]:
        if not name:
            yield
            return
        parameter = self._subject.parameters[name]
        value = parameter.clone()
        try:
            parameter.fill_(torch.nan)
            yield
        finally:
            parameter.copy_(value)

    @contextmanager
    def _changed(self, changes: Changes, T: int) -> Iterator[None]:
        length = self._subject.length
        handles = [
            self._subject.sites[site].register_forward_hook(
                _answering(function if length is None else _at_length(function, T, length)), with_kwargs=True
            )
            for site, function in changes.replaced.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _answering(function: Callable[[Tensor], Tensor | None]) -> Callable[..., Any]:
    """A hook that puts what the function returns in the place of a module's output."""

    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        x = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
        y = None if x is None else function(x.cpu())
        return None if x is None or y is None else _with_first(output, y.to(x.device))

    return hook


def _at_length(function: Callable[[Tensor], Tensor | None], T: int, length: int) -> Callable[[Tensor], Tensor | None]:
    """The function of T positions, for a module that gets `length` of them."""

    def answer(x: Tensor) -> Tensor | None:
        y = function(cut(x, T, length))
        return None if y is None else filled(y, length)

    return answer


def _with_first(output: Any, tensor: Tensor) -> Any:
    """The output of a module with another tensor in the place of the first."""
    first = first_tensor(output)
    if first is None:
        return tensor
    return with_another(output, first, tensor.reshape(first.shape) if first.numel() == tensor.numel() else tensor)


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.cpu() for name, tensor in tensors.items()}
