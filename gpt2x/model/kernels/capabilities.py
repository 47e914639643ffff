"""What the private and deprecated operators of this torch can do here, tried once on small tensors.

torch's own compiler calls the same operators (torch/_inductor/mkldnn_ir.py), but no version has to keep them. One
that is missing, raises or returns wrong numbers counts as absent; callers then use F.linear.
"""

import platform
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from gpt2x.memory import is_out_of_memory

_ROWS, _IN, _OUT = 2, 8, 4  # of the trial product


@cache
def has_onednn(dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies tensors of this dtype on the CPU at full speed."""
    if dtype == torch.bfloat16 and not _succeeds(lambda: bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())):
        return False
    return dtype in (torch.float32, torch.bfloat16) and _succeeds(lambda: _try_onednn(dtype))


@cache
def prefers_mkl() -> bool:
    """Whether MKL multiplies float32 faster than oneDNN does on weights as they are, which Intel's CPUs alone do."""
    cpuinfo = Path("/proc/cpuinfo")
    name = cpuinfo.read_text() if cpuinfo.is_file() else platform.processor()  # elsewhere: "..., GenuineIntel"
    return torch.backends.mkl.is_available() and "GenuineIntel" in name


@cache
def has_float16() -> bool:
    """Whether the CPU multiplies matrices of float16; torch otherwise takes minutes for what takes a second."""
    return _succeeds(lambda: bool(torch.ops.mkldnn._is_mkldnn_fp16_supported()))


@cache
def has_int8() -> bool:
    """Whether the CPU multiplies matrices of int8."""
    return _succeeds(_try_int8)


@cache
def reduces_range() -> bool:
    """Whether the int8 product must round its input to 7 bits.

    Without VNNI instructions, the sum of two products of 8-bit numbers overflows 16 bits.
    """
    has_vnni = _succeeds(lambda: bool(torch.cpu._is_vnni_supported()))
    return torch.backends.quantized.engine in ("x86", "fbgemm") and not has_vnni


def takes_int8(device: torch.device) -> bool:
    """Whether this torch has int8 products on the device."""
    return device.type == "cpu" and has_int8()


def quantize_rows(weight: Tensor) -> object:
    """A float32 weight [out, in], rounded to int8 with one scale per output, packed for linear_dynamic."""
    scales = weight.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny).double() / 127  # [out]
    zeros = torch.zeros_like(scales, dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in torch 2.10, where nothing replaces it yet
        rounded = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
    return torch.ops.quantized.linear_prepack(rounded, None)


def _try_onednn(dtype: torch.dtype) -> bool:
    """Compares the products by the plain and by the reordered weight; whole numbers leave nothing to round."""
    if not torch.backends.mkldnn.is_available():
        return False
    x, weight = (tensor.to(dtype) for tensor in _trial())
    reordered = torch.ops.mkldnn._reorder_linear_weight(weight)
    products = [torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "") for w in (weight, reordered)]
    return all(torch.equal(product.float(), (x @ weight.t()).float()) for product in products)


def _try_int8() -> bool:
    if torch.backends.quantized.engine == "none":
        return False
    x, weight = _trial()
    product = torch.ops.quantized.linear_dynamic(x, quantize_rows(weight), True)
    return torch.allclose(product, x @ weight.t(), rtol=0, atol=0.5)


def _trial() -> tuple[Tensor, Tensor]:
    """An input [rows, in] and a weight [out, in] of small whole numbers."""
    numbers = torch.arange(_OUT * _IN, dtype=torch.float32, device="cpu") % 5 - 2
    return numbers[: _ROWS * _IN].view(_ROWS, _IN), numbers.view(_OUT, _IN)


def _succeeds(probe: Callable[[], bool]) -> bool:
    """What the probe returns, or False where it raises."""
    try:
        with torch.no_grad():
            return probe()
    except Exception as error:  # any kind: an operator of another version, or of another build
        if is_out_of_memory(error):
            raise
        return False
