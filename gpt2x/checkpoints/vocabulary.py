"""Vocabularies that are padded: rows of wte that stand for no token, and the evidence that they are not used."""

import torch
from torch import Tensor

from gpt2x.model.config import GPT2Config

_MULTIPLE, _MOST = 64, 1024
"""A padded vocabulary is a multiple of 64, and less than 1024 rows larger than that of the tokenizer."""
_ALIKE = 0.1
"""Rows point the same way if their mean cosine is as close to 1, as a part of the distance of the rows of tokens.

Rows that were never a target only get the gradient of the softmax, which pushes all of them the same way: in a nanoGPT
of width 64 the mean cosine of such rows was 0.03 at the start, 0.83 after 50 steps, 0.93 after 100 and 0.99 after 400.
"""
_SAMPLE = 1000  # rows of tokens that are looked at
_SMALL = 0.01
"""Rows are small if none is longer than this part of the median length of the rows of tokens."""


def may_be_padded(rows: int) -> bool:
    """Whether a vocabulary of as many rows may be GPT-2's, padded: 50304, for example."""
    return rows % _MULTIPLE == 0 and 0 < rows - GPT2Config.vocab_size < _MOST


def evidence(wte: Tensor, n_used: int) -> str | None:
    """How the values show that the rows from n_used on stand for no token, as an end of a sentence; None if they do
    not show it.

    wte [V, C].
    """
    extra = wte[n_used:].float()
    if not extra.isfinite().all():
        return None
    if not extra.any():
        return "are all zero"
    if len(extra) > 1 and (extra == extra[0]).all():
        return "are all equal"
    used = wte[: n_used : -(-n_used // _SAMPLE)].float()
    longest = torch.linalg.vector_norm(extra, dim=1).max()
    if longest <= _SMALL * torch.linalg.vector_norm(used, dim=1).median():
        return f"are shorter than {_SMALL:.0%} of the median row"
    of_extra, of_used = _mean_cosine(extra), _mean_cosine(used)
    if 1 - of_extra < _ALIKE * (1 - of_used):
        return f"point the same way (their mean cosine is {of_extra:.3f}, that of the rows of tokens {of_used:.3f})"
    return None


def _mean_cosine(rows: Tensor) -> float:
    """The mean cosine of all pairs of rows [N, C]; 0 of one row."""
    n = len(rows)
    total = torch.nn.functional.normalize(rows, dim=1).sum(0).square().sum().item()
    return (total - n) / (n * (n - 1)) if n > 1 else 0.0
