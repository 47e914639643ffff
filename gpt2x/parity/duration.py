"""How long a validation takes, estimated from the size of the model and from products on this machine."""

import time

import torch
from torch.nn import functional as F

from gpt2x.model.gpt2 import GPT2

# What a validation of gpt2x's own model with all stages computes, counted by torch's FlopCounterMode for subject and
# reference together: this many forward passes over the prompt, and over the whole context, most of them in float64.
_OF_PROMPT, _OF_CONTEXT = 100, 2
_ROWS = 8192  # of the head: enough to be read from memory, and not from a cache
_ROUNDS = 3


def estimated_seconds(model: GPT2, n_tokens: int) -> float:
    """The time for a prompt of `n_tokens`, with all stages.

    What is no product, and the search for causes, come on top.
    """
    passes = {n_tokens: _OF_PROMPT, model.config.n_positions: _OF_CONTEXT}
    head = model.lm_head.weight[:_ROWS].detach().double()
    n_products = sum(parameter.numel() for parameter in model.parameters()) / head.numel()
    return n_products * sum(n * _seconds(head, rows) for rows, n in passes.items())


def _seconds(weight: torch.Tensor, rows: int) -> float:
    """The time of one product of [rows, C] with [_ROWS, C]."""
    x = torch.randn(rows, weight.shape[1]).to(weight)
    times = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        F.linear(x, weight)
        times.append(time.perf_counter() - start)
    return min(times)
