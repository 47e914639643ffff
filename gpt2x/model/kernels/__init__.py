"""Fast products for inference, swapped into a plain model, as gpt-fast does (https://github.com/meta-pytorch/gpt-fast).

The swapped layers compute the function of nn.Linear (int8 approximates it), and hold the very same parameters:
state dicts, tied weights, training and module names are those of the plain model.
"""

from torch import nn

from gpt2x.model.kernels.int8 import Int8Linear
from gpt2x.model.kernels.linear import FastLinear


def swap_in(model: nn.Module) -> None:
    """Replaces every nn.Linear in the model by a FastLinear with the same parameters."""
    _replace(model, FastLinear)


def quantize(model: nn.Module) -> None:
    """Replaces every nn.Linear in the model by an Int8Linear with the same parameters, and rounds its weight.

    Raises RuntimeError where int8 is impossible: on another device than the CPU, or with trainable weights.
    """
    _replace(model, Int8Linear)
    for module in model.modules():
        if isinstance(module, Int8Linear):
            module.quantize()


def pack(model: nn.Module) -> None:
    """Copies the weights of every FastLinear in the model into the order that is fastest for several rows."""
    for module in model.modules():
        if isinstance(module, FastLinear):
            module.pack()


def _replace(model: nn.Module, kind: type[FastLinear] | type[Int8Linear]) -> None:
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear):
                # On the meta device: no memory, and nothing drawn, for parameters that are replaced at once.
                made = kind(child.in_features, child.out_features, child.bias is not None, device="meta")
                made.weight, made.bias = child.weight, child.bias
                setattr(parent, name, made.train(child.training))
