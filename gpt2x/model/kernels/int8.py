"""The linear layer in int8: weights and inputs are rounded to 8 bits, on a CPU and without gradients."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2x.model.kernels.capabilities import quantize_rows, reduces_range, takes_int8
from gpt2x.model.kernels.copies import WeightCopy, can_be_copied


class Int8Linear(nn.Linear):
    """An nn.Linear that multiplies in int8. It keeps its weight, and rounds it again after every change.

    While the weight is trainable, and where the input needs a gradient, the product is that of the weight itself.
    """

    int8: WeightCopy[object] | None = None
    """The weight in int8."""

    def quantize(self) -> object:
        """The weight in int8, rounded anew where it has changed. Raises RuntimeError where int8 is impossible."""
        weight = self.weight
        if self.int8 is None or not self.int8.is_of(weight):
            self.int8 = None
            if not takes_int8(weight.device):
                raise RuntimeError(f"this torch has no int8 products on {weight.device.type}")
            if not can_be_copied(weight):
                raise RuntimeError("int8 needs weights that are not trainable, created outside of inference_mode")
            self.int8 = WeightCopy(weight, quantize_rows(weight.float()))
        return self.int8.value

    def rounded(self) -> tuple[Tensor, Tensor]:
        """The weight in whole numbers, int8 [out, in], and what 1 stands for in each row [out]."""
        packed, _ = torch.ops.quantized.linear_unpack(self.quantize())
        return packed.int_repr(), packed.q_per_channel_scales().float()

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out].

        linear_dynamic has one scale for all rows, from the smallest to the largest number that it sees. Each row
        must have its own scale instead, so that it does not depend on the other rows of its batch: rows are divided
        by their largest number, and one more row is added that holds both -1 and 1. A row that is not finite gives NaN.
        """
        if self.weight.requires_grad:
            self.int8 = None
            return F.linear(x, self.weight, self.bias)
        if torch.is_grad_enabled() and x.requires_grad:
            return F.linear(x, self.weight, self.bias)
        rows = x.reshape(-1, self.in_features).float()
        scales = rows.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)  # [N, 1]
        ends = rows.new_zeros(1, self.in_features)
        ends[0, 0], ends[0, -1] = -1, 1
        scaled = (rows / scales).nan_to_num_(nan=0.0)  # linear_dynamic raises for NaN; the scale makes it NaN again
        y = torch.ops.quantized.linear_dynamic(torch.cat([scaled, ends]), self.quantize(), reduces_range())
        y = y[:-1] * scales
        return (y if self.bias is None else y + self.bias).view(*x.shape[:-1], self.out_features).to(x.dtype)
