"""The filters of sampling: each takes logits and returns logits, with -inf for the tokens that it drops.

The rules are those of Hugging Face's TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper,
MinPLogitsWarper and TypicalLogitsWarper (transformers/generation/logits_process.py), applied in this order.
"""

import torch
from torch import Tensor

from gpt2x.config.decode import DecodeConfig

# top_p and typical_p look at this many tokens first. Sorting the whole vocabulary takes 15 times as long
# (130 ms instead of 9 ms for 32 rows of 50257 tokens) and is seldom needed.
_NEAR = 512


def filter_logits(logits: Tensor, decode: DecodeConfig) -> Tensor:
    """logits [B, V] -> [B, V] under temperature, top_k, top_p, min_p and typical_p, where these are set."""
    if decode.temperature != 1.0:
        # Relative to the largest logit, so that no temperature makes them overflow.
        logits = (logits - logits.amax(-1, keepdim=True)) / decode.temperature
    if decode.top_k is not None:
        logits = keep_top_k(logits, decode.top_k)
    if decode.top_p is not None and decode.top_p < 1:
        logits = keep_top_p(logits, decode.top_p)
    if decode.min_p is not None:
        logits = keep_min_p(logits, decode.min_p)
    if decode.typical_p is not None and decode.typical_p < 1:
        logits = keep_typical_p(logits, decode.typical_p)
    return logits


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Keeps the k largest logits of each row [B, V], and any that equal the k-th (Fan et al., arXiv:1805.04833)."""
    kth = logits.topk(min(k, logits.shape[-1])).values[:, -1:]  # [B, 1]
    return logits.masked_fill(logits < kth, -torch.inf)


def keep_top_p(logits: Tensor, p: float, near: int = _NEAR) -> Tensor:
    """Keeps the fewest likeliest tokens of each row [B, V] whose probabilities reach p.

    The token that crosses p stays (nucleus sampling, Holtzman et al., arXiv:1904.09751). The `near` likeliest tokens
    are searched first, and then, for the rows that need it, the whole vocabulary.
    """
    everything = near >= logits.shape[-1]
    ascending, ids = logits.sort() if everything else (found.flip(-1) for found in logits.topk(near))  # [B, K]
    mass = logits.softmax(-1).gather(-1, ids).cumsum(-1)
    further = 0 if everything else 1 - mass[:, -1:]  # mass of the tokens that are not searched
    dropped = further + mass <= 1 - p
    dropped[:, -1] = False
    filtered = torch.full_like(logits, -torch.inf).scatter(-1, ids, ascending.masked_fill(dropped, -torch.inf))
    unsure = ~dropped[:, 0]  # all searched tokens are kept, and others might have to be
    if not everything and unsure.any():
        filtered[unsure] = keep_top_p(logits[unsure], p, logits.shape[-1])
    return filtered


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Keeps the tokens of each row [B, V] that have at least p times the probability of the likeliest one.

    Nguyen et al., arXiv:2407.01082.
    """
    probabilities = logits.softmax(-1)
    return logits.masked_fill(probabilities < p * probabilities.amax(-1, keepdim=True), -torch.inf)


def keep_typical_p(logits: Tensor, p: float, near: int = _NEAR) -> Tensor:
    """Keeps the tokens of each row [B, V] whose information is nearest to the entropy: the fewest that reach p.

    The token that crosses p stays, and so do all tokens as near to the entropy (locally typical sampling,
    Meister et al., arXiv:2202.00666). The search is as in keep_top_p.
    """
    logprobs = logits.log_softmax(-1)  # [B, V]
    probabilities = logprobs.exp()
    entropy = -(logprobs * probabilities).nansum(-1, keepdim=True)  # [B, 1], in nats
    distance = (logprobs + entropy).abs()  # [B, V]
    ascending, ids = distance.topk(min(near, logits.shape[-1]), largest=False)  # [B, K]
    crossing = (probabilities.gather(-1, ids).cumsum(-1) < p).sum(-1, keepdim=True)  # [B, 1]
    last = ascending.gather(-1, crossing.clamp(max=ascending.shape[-1] - 1))
    filtered = logits.masked_fill(distance > last, -torch.inf)
    unsure = crossing[:, 0] == near  # the searched tokens together do not reach p
    if near < logits.shape[-1] and unsure.any():
        filtered[unsure] = keep_typical_p(logits[unsure], p, logits.shape[-1])
    return filtered
