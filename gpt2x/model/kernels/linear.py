"""The linear layer of inference on a CPU: the same function as nn.Linear, by the product that is fastest.

Measured on two AVX-512 cores with the 124M model in float32: for one row, MKL's product leaves memory bandwidth
unused; multiplying the weights in slices does not (1.5 times as fast in MKL's strict mode, which gpt2x/process.py
sets). The number of slices is fixed, so that the sum does not depend on the number of threads. For more rows,
oneDNN's products are 2 to 4 times as fast as MKL's on a CPU of AMD, and on weights in oneDNN's own blocked order up to
1.7 times as fast again, at the price of a copy of the weights. On one of Intel, MKL's products in float32 are up to 1.5
times as fast as oneDNN's, and as fast as those of weights in oneDNN's order. In float16, CPUs without instructions for
it multiply several rows in float32.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2x.model.kernels.capabilities import has_float16, has_onednn, prefers_mkl
from gpt2x.model.kernels.copies import WeightCopy, can_be_copied

_LARGE = 1 << 19  # numbers in a weight; a product with fewer is over before the choice between products is made
_SLICES = 16  # the product for one row uses up to so many threads; on one and two, 2 to 32 slices take the same time


class FastLinear(nn.Linear):
    """An nn.Linear that chooses its product at every call. `pack` pays where the same weights serve many calls."""

    packed: WeightCopy[Tensor] | None = None
    """The weight in oneDNN's order, for two rows and more."""

    def pack(self) -> None:
        """Copies the weight into oneDNN's order, where it has one and the weight is not trainable."""
        weight = self.weight
        if self.packed is not None and self.packed.is_of(weight):
            return
        self.packed = None
        if _onednn_takes(weight) and can_be_copied(weight):
            self.packed = WeightCopy(weight, torch.ops.mkldnn._reorder_linear_weight(weight))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        weight, rows = self.weight, x.numel() // self.in_features
        if self.packed is not None and not self.packed.is_of(weight):
            self.packed = None
        if weight.dtype == torch.float16 and weight.device.type == "cpu" and rows > 1 and not has_float16():
            bias = None if self.bias is None else self.bias.float()
            return F.linear(x.float(), weight.float(), bias).to(x.dtype)
        needs_gradient = torch.is_grad_enabled() and (weight.requires_grad or x.requires_grad)
        if needs_gradient or x.dtype != weight.dtype or not _onednn_takes(weight):
            return F.linear(x, weight, self.bias)
        if rows == 1 and weight.stride(0) == 1:
            return self._by_slices(x)
        if self.packed is None and rows > 1 and weight.dtype == torch.float32 and prefers_mkl():
            return F.linear(x, weight, self.bias)
        # One row is computed without the copy, so that packing does not change a bit of it.
        w = weight if self.packed is None or rows == 1 else self.packed.value
        return torch.ops.mkldnn._linear_pointwise(x, w, self.bias, "none", [], "")

    def _by_slices(self, x: Tensor) -> Tensor:
        """The product for one row and a weight that lies in memory as [in, out]: threads share its slices."""
        if self.in_features % _SLICES:
            return F.linear(x, self.weight, self.bias)
        slices = self.weight.t().view(_SLICES, -1, self.out_features)  # [slices, in / slices, out]
        y = torch.bmm(x.reshape(_SLICES, 1, -1), slices).sum(0)
        return (y if self.bias is None else y + self.bias).view(*x.shape[:-1], self.out_features)


def _onednn_takes(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.numel() >= _LARGE and has_onednn(weight.dtype)
