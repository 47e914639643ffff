"""Layers that hold a copy of their weight, and whether their product is the right one."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2x.model.kernels.copies import WeightCopy
from gpt2x.model.kernels.int8 import Int8Linear
from gpt2x.model.kernels.linear import FastLinear

SIZE = 768  # square, so that a transposed weight fits; large enough for all products
BARS = {FastLinear: 1e-5, Int8Linear: 0.02}
Layer = FastLinear | Int8Linear


def inputs(rows: int = 5) -> Tensor:
    return torch.randn(rows, SIZE, generator=torch.Generator().manual_seed(1))


def copied(kind: type[Layer]) -> Any:
    """A layer that holds a copy of its weight."""
    torch.manual_seed(0)
    made = kind(SIZE, SIZE).requires_grad_(False)
    made.weight.data = torch.randn(SIZE, SIZE).t()
    made.pack() if isinstance(made, FastLinear) else made.quantize()
    assert held(made) is not None
    assert_correct(made)
    assert held(made) is not None
    return made


def held(layer: Layer) -> WeightCopy[Any] | None:
    return layer.packed if isinstance(layer, FastLinear) else layer.int8


def assert_correct(layer: Layer, bar: float | None = None) -> None:
    """The product is that of the weight as it is now, for one row and for several."""
    for rows in (1, 5):
        x = inputs(rows).to(layer.weight.dtype)
        expected = F.linear(x.double(), layer.weight.double(), layer.bias.double())
        error = (layer(x).double() - expected).norm() / expected.norm()
        assert error < (bar or BARS[type(layer)])
