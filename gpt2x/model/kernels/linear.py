"""The linear layer, computed in whichever way is fastest for its rows, dtype and device; all give the same function.

Measured on two AVX-512 cores, 124M, float32: with one row, MKL's product leaves memory bandwidth unused, which
one slice of the weights a thread does not (1.4x); with more rows oneDNN's products are 2 to 4 times as fast as
MKL's, and on weights in oneDNN's own blocked order up to 1.7 times as fast again, at the price of a copy of them.
"""

import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Private operators, which torch's own compiler uses (torch/_inductor/mkldnn_ir.py): absent ones leave F.linear.
_OPERATORS = ("_linear_pointwise", "_reorder_linear_weight", "_is_mkldnn_bf16_supported")
_ONEDNN = torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in _OPERATORS)
# Without VNNI, sums of two products of 8 bits overflow 16: the operator then rounds activations to 7 bits.
_REDUCE_RANGE = torch.backends.quantized.engine in ("x86", "fbgemm") and not torch.cpu._is_vnni_supported()
_ONEDNN_BF16 = _ONEDNN and torch.ops.mkldnn._is_mkldnn_bf16_supported()
_LARGE = 1 << 19  # weights: below, a product is over before the choice between products is made


class Linear(nn.Linear):
    """nn.Linear whose product is chosen anew at every call; `pack` pays where the same weights serve many calls."""

    packed: Tensor | None = None
    """A copy of the weight in oneDNN's order, for two rows and more."""
    int8: torch.ScriptObject | None = None
    """The weight in 8 bits; used alone, once it is there."""

    def pack(self) -> None:
        if self.packed is None and self.int8 is None and _onednn_takes(self.weight):
            self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight)

    def quantize(self) -> None:
        """Rounds the weight to int8, with one scale for each output; activations are then rounded as they come."""
        scales = self.weight.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny).double() / 127  # [out]
        zeros = torch.zeros_like(scales, dtype=torch.long)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch means to take this away, and has nothing in its place yet
            rounded = torch.quantize_per_channel(self.weight, scales, zeros, 0, torch.qint8)
        self.int8 = torch.ops.quantized.linear_prepack(rounded, None)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        if self.int8 is not None:
            return self._in_int8(x)
        weight, rows = self.weight, x.numel() // self.in_features
        if (torch.is_grad_enabled() and (weight.requires_grad or x.requires_grad)) or not _onednn_takes(weight):
            return F.linear(x, weight, self.bias)
        if rows == 1 and weight.stride(0) == 1:
            return self._by_slices(x)
        # One row as without a copy: that there is one must not change a bit.
        w = weight if self.packed is None or rows == 1 else self.packed
        return torch.ops.mkldnn._linear_pointwise(x, w, self.bias, "none", [], "")

    def _by_slices(self, x: Tensor) -> Tensor:
        """One row, with weights in the order of the file, [in, out]: each thread reads its own slice of them."""
        n = torch.get_num_threads()
        if self.in_features % n:
            return F.linear(x, self.weight, self.bias)
        slices = self.weight.t().view(n, -1, self.out_features)  # [n, in / n, out]
        y = torch.bmm(x.reshape(n, 1, -1), slices).sum(0)
        return (y if self.bias is None else y + self.bias).view(*x.shape[:-1], self.out_features)

    def _in_int8(self, x: Tensor) -> Tensor:
        """Each row with a scale of its own: what is beside it in a batch must not change it.

        The operator has one scale for all rows, from the smallest to the largest value that it sees; so the rows
        are brought to [-1, 1], and one more is added that holds both ends.
        """
        rows = x.reshape(-1, self.in_features)
        scales = rows.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)  # [N, 1]
        ends = rows.new_zeros(1, self.in_features)
        ends[0, 0], ends[0, -1] = -1, 1
        y = torch.ops.quantized.linear_dynamic(torch.cat([rows / scales, ends]), self.int8, _REDUCE_RANGE)
        y = y[:-1] * scales
        return (y if self.bias is None else y + self.bias).view(*x.shape[:-1], self.out_features)


def takes_int8(device: torch.device) -> bool:
    """Whether this torch has int8 products there."""
    return (
        device.type == "cpu"
        and torch.backends.quantized.engine != "none"
        and all(hasattr(torch.ops.quantized, name) for name in ("linear_prepack", "linear_dynamic"))
    )


def _onednn_takes(weight: Tensor) -> bool:
    if not _ONEDNN or weight.device.type != "cpu" or weight.numel() < _LARGE:
        return False
    return weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and _ONEDNN_BF16)
