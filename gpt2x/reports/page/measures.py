"""What a report compares between settings: the scores of each task, as sums over the rows of its table.

A score of many rows is the sum of their numerators divided by the sum of their denominators, so that long texts count
for more than short ones where the score is per token or per word.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpt2x.benchmark.rows import BenchmarkRow
from gpt2x.decoding.rows import GenerationRow
from gpt2x.decoding.scores import n_grams
from gpt2x.evaluation.rows import EvaluationRow
from gpt2x.parity.rows import SummaryRow
from gpt2x.training.rows import TrainRow

Ratio = tuple[float, float]
"""Numerator and denominator; (0, 0) where a row has nothing to measure."""


@dataclass(frozen=True)
class Score:
    """One number per setting."""

    name: str
    meaning: str
    """For the caption."""
    of: Callable[[Any], Ratio]
    """From a row of the table."""


@dataclass(frozen=True)
class Measured:
    """The table of a task, and its scores."""

    table: str
    row_type: type
    scores: tuple[Score, ...] = ()
    select: Callable[[list[Any]], list[Any]] = lambda rows: rows
    """The rows of a run that the scores are computed from."""


def distinct(text: str, n: int = 2) -> Ratio:
    """How many of the pairs of consecutive words are different ones (distinct-n of Li et al., 2016, in one text)."""
    groups = n_grams(text.split(), n)
    return len(set(groups)), len(groups)


def repeated(text: str, n: int = 4) -> Ratio:
    """How many of the runs of four words have occurred before in the text (seq-rep-4 of Welleck et al., 2020)."""
    groups = n_grams(text.split(), n)
    return len(groups) - len(set(groups)), len(groups)


def _best(rows: list[TrainRow]) -> list[TrainRow]:
    return [min(rows, key=lambda row: row.val_bits_per_byte)] if rows else []


_GENERATION = (
    Score(
        "log-probability per token", "in nats, under the unfiltered model", lambda row: (row.logprob, row.n_new_tokens)
    ),
    Score("distinct pairs of words", "share of the pairs in a text", lambda row: distinct(row.completion)),
    Score("repeated runs of four words", "share of the runs in a text", lambda row: repeated(row.completion)),
    Score("new tokens", "per text", lambda row: (row.n_new_tokens, 1)),
)
_BITS = Score("bits per byte", "of all texts together", lambda row: (row.bits_per_byte * row.n_bytes, row.n_bytes))
_BEST_BITS = Score("bits per byte", "best of a run, on the validation split", lambda row: (row.val_bits_per_byte, 1))

MEASURES = {
    "generate": Measured("generations.csv", GenerationRow, _GENERATION),
    "evaluate": Measured("evaluation.csv", EvaluationRow, (_BITS,)),
    "train": Measured("train.csv", TrainRow, (_BEST_BITS,), select=_best),
    "validate": Measured("summary.csv", SummaryRow),
    "benchmark": Measured("benchmark.csv", BenchmarkRow),
}
"""By task. A run of another task is listed without numbers."""
