"""The rows of evaluation.csv. Importing it never imports torch."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class EvaluationRow:
    """evaluation.csv: one row per text."""

    text_id: str
    n_tokens: int
    """Tokens that are predicted: all but the first one of the text."""
    n_bytes: int
    """UTF-8 bytes of these tokens."""
    loss: float
    """Mean negative log-likelihood per predicted token, in nats."""
    perplexity: float
    """exp(loss)."""
    bits_per_byte: float
    """Negative log-likelihood of the predicted tokens in bits, divided by n_bytes: comparable between tokenizers."""
    stride: int
    """Tokens by which the window of n_positions tokens moves."""
    model: str
    weights: str
    dtype: str


def loss(rows: Sequence[EvaluationRow]) -> float:
    """Mean negative log-likelihood per predicted token of all texts, in nats."""
    return sum(row.loss * row.n_tokens for row in rows) / sum(row.n_tokens for row in rows)


def bits_per_byte(rows: Sequence[EvaluationRow]) -> float:
    """Negative log-likelihood of all texts in bits, divided by their bytes."""
    return sum(row.bits_per_byte * row.n_bytes for row in rows) / sum(row.n_bytes for row in rows)
