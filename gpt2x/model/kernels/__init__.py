"""Fast products for inference, swapped into a plain model, as gpt-fast does (https://github.com/meta-pytorch/gpt-fast).

The swapped layers compute the function of nn.Linear (int8 approximates it), and hold the very same parameters:
state dicts, tied weights, training and module names are those of the plain model.
"""

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from gpt2x.model.kernels.int8 import Int8Linear
from gpt2x.model.kernels.linear import FastLinear
from gpt2x.model.kernels.norm import SteadyLayerNorm


def swap_in(model: nn.Module) -> None:
    """Replaces every nn.Linear in the model by a FastLinear, and every nn.LayerNorm by a SteadyLayerNorm."""
    _replace_linear(model, FastLinear)
    _replace(model, nn.LayerNorm, lambda old: SteadyLayerNorm(old.normalized_shape, old.eps, device="meta"))


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
    _replace(model, nn.Linear, lambda old: kind(old.in_features, old.out_features, old.bias is not None, device="meta"))


Layer = TypeVar("Layer", nn.Linear, nn.LayerNorm)


def _replace(model: nn.Module, kind: type[Layer], make: Callable[[Layer], Layer]) -> None:
    """Replaces each layer of a kind by one that `make` makes, with the very same parameters.

    `make` makes it on the meta device: no memory, and nothing drawn, for parameters that are replaced at once.
    """
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, kind):
                made = make(child)
                made.weight, made.bias = child.weight, child.bias
                setattr(parent, name, made.train(child.training))
