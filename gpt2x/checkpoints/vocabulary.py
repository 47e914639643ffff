"""Vocabularies that are padded: rows of wte that stand for no token, and the evidence that they are not used."""

import torch
from torch import Tensor

from gpt2x.model.config import GPT2Config

_MULTIPLE, _MOST = 64, 1024
"""A padded vocabulary is a multiple of 64, and less than 1024 rows larger than that of the tokenizer."""
_ALIKE = 0.1
"""Rows are alike if they differ from their mean by less than this part of what the rows of tokens do (root mean
square). Rows that were never a target only get the gradient of the softmax, which pushes all of them the same way."""
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
    used = wte[:n_used]
    lengths = torch.linalg.vector_norm(used, dim=1, dtype=torch.float32)
    if torch.linalg.vector_norm(extra, dim=1).max() <= _SMALL * lengths.median():
        return f"are shorter than {_SMALL:.0%} of the median row"
    if len(extra) > 1 and _spread(extra) < _ALIKE * _spread(used.float()):
        return f"differ among themselves by less than {_ALIKE:.0%} of what the rows of tokens do"
    return None


def _spread(rows: Tensor) -> float:
    """The root mean square distance of rows from their mean."""
    return (rows - rows.mean(0)).square().sum(1).mean().sqrt().item()
