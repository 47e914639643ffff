"""What a sampling setting leaves of a distribution: logits in, logits out, -inf where a token is dropped.

The rules are those of Hugging Face's TemperatureLogitsWarper, TopKLogitsWarper and TopPLogitsWarper
(transformers/generation/logits_process.py), applied in this order.
"""

import torch
from torch import Tensor

from gpt2x.schema import DecodeConfig


def filter_logits(logits: Tensor, decode: DecodeConfig) -> Tensor:
    """logits [B, V] -> [B, V] under temperature, then top_k, then top_p; what is not set is off."""
    if decode.temperature != 1.0:
        # From the largest down, so that no temperature overflows.
        logits = (logits - logits.amax(-1, keepdim=True)) / decode.temperature
    if decode.top_k is not None:
        logits = keep_top_k(logits, decode.top_k)
    if decode.top_p is not None:
        logits = keep_top_p(logits, decode.top_p)
    return logits


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Keeps the k largest logits of each row [B, V], and any that equal the k-th (Fan et al., arXiv:1805.04833)."""
    kth = logits.topk(min(k, logits.shape[-1])).values[:, -1:]  # [B, 1]
    return logits.masked_fill(logits < kth, -torch.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keeps the fewest likeliest tokens of each row [B, V] whose probabilities reach p.

    The token that crosses p stays (nucleus sampling, Holtzman et al., arXiv:1904.09751).
    """
    ascending, order = logits.sort()  # [B, V]
    dropped = ascending.softmax(-1).cumsum(-1) <= 1 - p
    dropped[:, -1] = False
    return logits.masked_fill(dropped.scatter(-1, order, dropped), -torch.inf)
