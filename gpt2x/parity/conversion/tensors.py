"""Compares the tensors that a reader found with those of the source."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from gpt2x.checkpoints.names import is_conv1d
from gpt2x.parity.conversion.rows import Found, TensorRow


def compare_tensors(
    reader: str, source: Mapping[str, Tensor], read: Mapping[str, Tensor], stored_dtype: Callable[[str], str]
) -> Iterator[TensorRow]:
    """One row per tensor. Both have Hugging Face's names and layout; `stored_dtype` says how the file stores each."""
    for name in [*source, *(name for name in read if name not in source)]:
        if name not in source:
            yield TensorRow(reader, name, _shape(read[name]), "", Found.UNEXPECTED, None, None)
            continue
        expected, dtype = source[name], stored_dtype(name)
        if name not in read:
            yield TensorRow(reader, name, _shape(expected), dtype, Found.MISSING, None, None)
        elif read[name].shape != expected.shape:
            yield TensorRow(reader, name, _shape(read[name]), dtype, Found.WRONG, None, None)
        else:
            yield _compare(reader, name, expected, read[name].to("cpu"), dtype)


def _compare(reader: str, name: str, source: Tensor, read: Tensor, dtype: str) -> TensorRow:
    if _same_bits(read, source):
        return TensorRow(reader, name, _shape(source), dtype, Found.EQUAL, 0.0, 0.0)
    error = (read.double() - source.double()).abs_()
    found = Found.ROUNDED if _is_rounded(name, read, source, error, dtype) else Found.WRONG
    largest, scale = error.max().item(), source.abs().max().item()
    return TensorRow(reader, name, _shape(source), dtype, found, largest, largest / scale if scale else largest)


def _same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether all values are the same, and have the same sign where they are 0. Widening loses nothing."""
    wider = torch.promote_types(a.dtype, b.dtype)
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[wider.itemsize]
    return torch.equal(a.to(wider).contiguous().view(bits), b.to(wider).contiguous().view(bits))


def _is_rounded(name: str, read: Tensor, source: Tensor, error: Tensor, dtype: str) -> bool:
    if dtype != "int8":
        return _same_bits(read, source.to(getattr(torch, dtype)))
    if is_conv1d(name):  # blocks of q8_0 lie along the input
        source, error = source.t(), error.t()
    return bool((error <= _q8_0_bound(source)).all())


def _q8_0_bound(source: Tensor) -> Tensor:
    """The largest error that q8_0 may make of each value of a matrix [out, in].

    The largest of a block of 32 values is 127 steps. Rounding moves a value by up to half a step, and the step itself
    is rounded to float16: to 11 bits, or to multiples of 2**-24 below 2**-14.
    """
    blocks = source.double().reshape(len(source), -1, 32)
    step = blocks.abs().amax(-1, keepdim=True) / 127
    bound = 0.5 * step + 127 * torch.maximum(step * 2**-11, torch.tensor(2.0**-25, dtype=torch.float64))
    return (bound * (1 + 1e-6)).expand_as(blocks).reshape(source.shape)  # quantizers compute in float32


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))
