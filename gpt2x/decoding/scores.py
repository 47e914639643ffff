"""Scores of generated texts: the numbers by which a search compares settings. Importing this loads no torch."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from gpt2x.decoding.rows import GenerationRow

T = TypeVar("T")
Encode = Callable[[str], list[int]]


def logprob(rows: Sequence[GenerationRow]) -> float | None:
    """Mean log-probability per new token of all rows, in nats, under the unfiltered model; None without a new token."""
    n_tokens = sum(row.n_new_tokens for row in rows)
    return sum(row.logprob for row in rows) / n_tokens if n_tokens else None


def distinct(texts: Sequence[Sequence[int]], n: int = 2) -> float | None:
    """Distinct-n: different n-grams of tokens divided by all of them, over all texts; None if there is no n-gram.

    Source: Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation Models", section 5.
    """
    found = [gram for text in texts for gram in n_grams(text, n)]
    return len(set(found)) / len(found) if found else None


def repetition(texts: Sequence[Sequence[int]], n: int = 4) -> float | None:
    """seq-rep-n: the share of a text's n-grams of tokens that repeat an earlier one, as the mean over the texts.

    Texts with fewer than n tokens do not count; None if there is no other. Source: Welleck et al. 2020, "Neural Text
    Generation with Unlikelihood Training", section 6, which uses n = 4.
    """
    shares = [1 - len(set(grams)) / len(grams) for grams in (n_grams(text, n) for text in texts) if grams]
    return sum(shares) / len(shares) if shares else None


def score(name: str, rows: Sequence[GenerationRow], encode: Encode) -> float | None:
    """The score of this name (see SCORES in gpt2x/config/tasks/generate.py) of the completions in the rows."""
    if name == "logprob":
        return logprob(rows)
    return {"distinct_2": distinct, "repetition": repetition}[name]([encode(row.completion) for row in rows])


def n_grams(text: Sequence[T], n: int) -> list[tuple[T, ...]]:
    """All runs of n consecutive tokens or words of a text."""
    return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
