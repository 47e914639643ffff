"""The scores of generated texts, against their definitions."""

from dataclasses import fields

import pytest

from gpt2x.config.tasks.generate import SCORES
from gpt2x.decoding.rows import GenerationRow
from gpt2x.decoding.scores import distinct, logprob, repetition, score


def row(completion: str, logprob: float, n_new_tokens: int) -> GenerationRow:
    values = dict.fromkeys(field.name for field in fields(GenerationRow))
    return GenerationRow(**values | {"completion": completion, "logprob": logprob, "n_new_tokens": n_new_tokens})


def letters(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def test_logprob_is_the_mean_over_tokens_not_over_texts() -> None:
    assert logprob([row("a", -1.0, 1), row("bcd", -9.0, 4)]) == -2.0
    assert logprob([row("", 0.0, 0)]) is None


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["abab"], 2 / 3),  # ab ba ab
        (["abc", "abd"], 3 / 4),  # ab bc ab bd: pairs of all texts together, and none across two texts
        (["aaaa"], 1 / 3),
        (["a", ""], None),
    ],
)
def test_distinct_2(texts: list[str], expected: float | None) -> None:
    assert distinct(list(map(letters, texts))) == expected


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["abcdefgh"], 0.0),
        (["aaaaaaaa"], 4 / 5),  # five times aaaa
        (["abcdabcd"], 1 / 5),  # abcd bcda cdab dabc abcd
        (["aaaaaaaa", "abcdefgh"], 2 / 5),  # the mean over texts
        (["aaaaaaaa", "abc"], 4 / 5),  # a text without four tokens does not count
        (["abc"], None),
    ],
)
def test_repetition(texts: list[str], expected: float | None) -> None:
    assert repetition(list(map(letters, texts))) == (None if expected is None else pytest.approx(expected))


def test_every_score_can_be_computed() -> None:
    rows = [row("aaaaaaaa", -8.0, 8)]
    found = {each.name: score(each.name, rows, letters) for each in SCORES}
    assert found == {"logprob": -1.0, "distinct_2": 1 / 7, "repetition": pytest.approx(4 / 5)}
