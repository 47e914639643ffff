"""Layers that are swapped into a plain model, as gpt-fast does (https://github.com/meta-pytorch/gpt-fast).

The products are faster, and the other layers round the same way with any number of threads. They compute the
functions of the plain layers (int8 approximates them), and hold the very same parameters: state dicts, tied weights,
training and module names are those of the plain model.
"""

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from gpt2x.model.kernels.gelu import SteadyGELU
from gpt2x.model.kernels.int8 import Int8Linear
from gpt2x.model.kernels.linear import FastLinear
from gpt2x.model.kernels.norm import SteadyLayerNorm


def swap_in(model: nn.Module) -> None:
    """Replaces every nn.Linear, nn.LayerNorm and nn.GELU by a FastLinear, a SteadyLayerNorm and a SteadyGELU."""
    _replace_linear(model, FastLinear)
    _replace(
        model,
        nn.LayerNorm,
        lambda old: _with_parameters(SteadyLayerNorm(old.normalized_shape, old.eps, device="meta"), old),
    )
    _replace(model, nn.GELU, lambda old: SteadyGELU(old.approximate))


def quantize(model: nn.Module) -> None:
    """Replaces every nn.Linear in the model by an Int8Linear, and rounds its weight.

    Raises RuntimeError where int8 is impossible: on another device than the CPU, or with trainable weights.
    """
    _replace_linear(model, Int8Linear)
    for module in model.modules():
        if isinstance(module, Int8Linear):
            module.quantize()


def pack(model: nn.Module) -> None:
    """Copies the weights of every FastLinear in the model into the order that is fastest for several rows."""
    for module in model.modules():
        if isinstance(module, FastLinear):
            module.pack()


def _replace_linear(model: nn.Module, kind: type[FastLinear] | type[Int8Linear]) -> None:
    def make(old: nn.Linear) -> nn.Linear:
        return _with_parameters(kind(old.in_features, old.out_features, old.bias is not None, device="meta"), old)

    _replace(model, nn.Linear, make)


Old = TypeVar("Old", bound=nn.Module)
Layer = TypeVar("Layer", nn.Linear, nn.LayerNorm)


def _replace(model: nn.Module, kind: type[Old], make: Callable[[Old], nn.Module]) -> None:
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, kind):
                setattr(parent, name, make(child).train(child.training))


def _with_parameters(made: Layer, old: Layer) -> Layer:
    """`made`, which is on the meta device, as its parameters would only be allocated and drawn to be replaced here."""
    made.weight, made.bias = old.weight, old.bias
    return made
