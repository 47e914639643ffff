"""The inputs and outputs of modules, recorded in a forward pass."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gpt2x.parity.answers import first_tensor


@dataclass
class Trace:
    """Tensors by site; those of the first call if a module is called several times."""

    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    """Sites in the order in which they were entered, repetitions included."""


def trace(
    forward: Callable[[], Any], sites: Mapping[str, nn.Module], given: Mapping[str, Tensor] | None = None
) -> Trace:
    """Runs forward() and returns the inputs and outputs of `sites`.

    A site in `given` computes on that tensor instead of the first tensor among its arguments.
    """
    result, given = Trace(), given or {}

    def before(site: str) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]] | None]:
        def hook(
            _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
            result.calls.append(site)
            received = [*args, *kwargs.values()]
            place = next((i for i, value in enumerate(received) if isinstance(value, Tensor)), None)
            if place is None:
                return None
            x = received[place]
            result.inputs.setdefault(site, x.detach().clone())
            if site not in given or given[site].numel() != x.numel():
                return None
            instead = given[site].to(x, copy=True).reshape(x.shape)
            received = [instead if value is x else value for value in received]
            return tuple(received[: len(args)]), dict(zip(kwargs, received[len(args) :], strict=True))

        return hook

    def after(site: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: tuple[Any, ...], _kwargs: dict[str, Any], output: Any) -> None:
            y = first_tensor(output)
            if y is not None:
                result.outputs.setdefault(site, y.detach().clone())

        return hook

    handles = []
    try:
        for site, module in sites.items():
            handles.append(module.register_forward_pre_hook(before(site), with_kwargs=True))
            handles.append(module.register_forward_hook(after(site), with_kwargs=True))
        with torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return result


def isolate(
    forward: Callable[[], Any], sites: Mapping[str, nn.Module], inputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Site -> the output of its module when it is given the reference's input.

    One forward pass per depth (h.0, then h.0.attn, then h.0.attn.c_attn): in the pass for a module its own parts
    are left alone, so that their mistakes show in its output too.
    """
    outputs: dict[str, Tensor] = {}
    for depth in sorted({_depth(site) for site in sites}):
        here = {site: module for site, module in sites.items() if _depth(site) == depth}
        given = {site: inputs[site] for site in here if site in inputs}
        outputs |= trace(forward, here, given).outputs
    return outputs


def _depth(site: str) -> int:
    """0 for wte, h.0 and lm_head, 1 for h.0.attn, 2 for h.0.attn.c_attn, 3 for h.0.attn.c_attn.q."""
    return max(site.removeprefix("h.").count("."), 0)
