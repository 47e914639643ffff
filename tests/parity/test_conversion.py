"""What counts as the same tensor after a conversion."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from gpt2x.parity.conversion.rows import Found
from gpt2x.parity.conversion.tensors import compare_tensors

NAME = "transformer.wte.weight"


def found(source: Tensor, read: Tensor, dtype: str, name: str = NAME) -> Found:
    (row,) = compare_tensors("r", {name: source}, {name: read}, lambda name: dtype)
    return row.found


@pytest.fixture
def matrix() -> Tensor:
    return torch.randn(8, 64, generator=torch.Generator().manual_seed(0))


def q8_0(matrix: Tensor) -> Tensor:
    gguf = pytest.importorskip("gguf")
    kind = gguf.GGMLQuantizationType.Q8_0
    return torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(matrix.numpy(), kind), kind))


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-6, 1e4, 0.0], ids=str)
def test_values_rounded_to_q8_0(matrix: Tensor, scale: float) -> None:
    """The step of a block is a float16, which below 6e-5 has fewer bits, and below 6e-8 is 0."""
    source = matrix * scale
    assert found(source, q8_0(source), "int8") in (Found.ROUNDED, Found.EQUAL)


def test_a_value_of_q8_0_is_at_most_half_a_step_away(matrix: Tensor) -> None:
    """And what the rounding of the step makes: 127 times 1/2048 of it, at most."""
    step = matrix[3, :32].abs().max() / 127
    for steps, expected in [(0.5, Found.ROUNDED), (0.6, Found.WRONG)]:
        read = q8_0(matrix)
        read[3, 5] = matrix[3, 5] + steps * step
        assert found(matrix, read, "int8") is expected


def test_blocks_of_q8_0_lie_along_the_input(matrix: Tensor) -> None:
    """The bound of another block would be wrong for a row of small values."""
    matrix[2] *= 1e-3
    conv1d = "transformer.h.0.attn.c_attn.weight"  # Hugging Face has it as [in, out]
    assert found(matrix.t(), q8_0(matrix).t(), "int8", conv1d) is Found.ROUNDED
    read = q8_0(matrix)
    read[2] = 0.0
    assert found(matrix.t(), read.t(), "int8", conv1d) is Found.WRONG


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_values_rounded_to_the_next_number_but_one_are_wrong(matrix: Tensor, dtype: str) -> None:
    rounded = matrix.to(getattr(torch, dtype))
    assert found(matrix, rounded.float(), dtype) is Found.ROUNDED
    rounded.view(torch.int16)[3, 5] += 1
    assert found(matrix, rounded.float(), dtype) is Found.WRONG


CHANGES: dict[str, tuple[Callable[[Tensor], None], Found]] = {
    "nothing": (lambda m: None, Found.EQUAL),
    "one bit": (lambda m: m.view(torch.int32)[0, 0:1].add_(1), Found.WRONG),
    "the sign of a zero": (lambda m: m[1, 1:2].neg_(), Found.WRONG),
    "NaN": (lambda m: m[0, 0:1].fill_(np.nan), Found.WRONG),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("read_as", [torch.float32, torch.float64], ids=str)
def test_the_same_bits(matrix: Tensor, change: str, read_as: torch.dtype) -> None:
    matrix[1, 1] = 0.0
    read = matrix.clone()
    apply, expected = CHANGES[change]
    apply(read)
    assert found(matrix, read.to(read_as), "float32") is expected


def test_names_and_shapes(matrix: Tensor) -> None:
    source = {"a": matrix, "b": matrix, "c": matrix}
    read = {"a": matrix.t(), "c": matrix, "d": matrix}
    rows = list(compare_tensors("r", source, read, lambda name: "float32"))
    assert [(row.tensor, row.found, row.shape) for row in rows] == [
        ("a", Found.WRONG, "64x8"),
        ("b", Found.MISSING, "8x64"),
        ("c", Found.EQUAL, "8x64"),
        ("d", Found.UNEXPECTED, "8x64"),
    ]
