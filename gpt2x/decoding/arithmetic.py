"""In which numbers a model computes, in words: what a dtype says of the weights need not hold for the products."""

import torch

from gpt2x.checkpoints.names import dtype_name
from gpt2x.model.gpt2 import GPT2
from gpt2x.model.kernels.capabilities import has_float16
from gpt2x.model.kernels.int8 import Int8Linear


def arithmetic(model: GPT2, is_compiled: bool) -> str:
    """What is multiplied, by decode steps that are compiled or by torch's operators; empty where the dtype says it."""
    weight = model.lm_head.weight
    if isinstance(model.lm_head, Int8Linear):
        return f"weights in int8, activations {'in float32' if is_compiled else 'rounded to int8 for each product'}"
    if weight.dtype not in (torch.bfloat16, torch.float16):
        return ""
    name = dtype_name(weight.dtype)
    if is_compiled:
        return f"weights in {name}, activations in float32"
    if weight.dtype == torch.float16 and weight.device.type == "cpu" and not has_float16():
        return "weights and activations in float16, products of several rows in float32 (this CPU has none in float16)"
    return f"weights and activations in {name}"
