"""The numbers of task=benchmark, from engines that are played."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gpt2x.benchmark.engines import Variant
from gpt2x.benchmark.measured import Measured
from gpt2x.benchmark.participants import Participant, Participants
from gpt2x.benchmark.worker import EngineError
from tests.benchmark.test_benchmark import SMALL, at_once
from tests.conftest import Cli, assert_in, read_csv

__all__ = ["at_once"]


@dataclass
class Actor:
    """Plays a Worker: its first token takes 2 s, and each later one what `steps` says of the round."""

    engine: str
    steps: tuple[float, ...] = (1.0,)
    dtype: str = "float32"
    differs: bool = False
    """In new token 1 of the first row."""
    top2_margin: float = 0.5
    dies: str = ""
    """The method in which its process dies."""
    turns: int = 0

    @property
    def variant(self) -> Variant:
        return Variant(self.engine, self.dtype)

    def peak_rss(self) -> int:
        self.maybe_die("peak_rss")
        return 5_000_000

    def first_seconds(self, prompts: list[list[int]]) -> float:
        return 2.0

    def margin(self, ids: list[int]) -> float:
        self.maybe_die("margin")
        assert ids[4:] == [0]  # a prompt, and the token that both continue it with
        return self.top2_margin

    def maybe_die(self, method: str) -> None:
        if method == self.dies:
            raise EngineError("has died")

    def close(self) -> None:
        pass

    def generate(self, prompts: list[list[int]], n: int) -> tuple[list[list[int]], float]:
        tokens = [list(range(n)) for _ in prompts]
        if self.turns == 2:
            self.maybe_die("generate")
        if self.differs:
            tokens[0][1] += 1
        step = self.steps[(self.turns - 1) % len(self.steps)]  # the first turn warms up
        self.turns += 1
        return tokens, 2.0 + (n - 1) * step


@pytest.fixture
def play(gpt2x: Cli, launch: Path, at_once: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs the benchmark with these engines; returns what the command line did, and the rows."""

    def run(*actors: Actor, rounds: int = 1, batch_sizes: str = "[2]") -> Any:
        @contextmanager
        def loaded(*args: Any) -> Iterator[Participants]:
            yield Participants([Participant(actor, Measured(actor.variant, 0.25, "7.8.9")) for actor in actors])

        monkeypatch.setattr("gpt2x.benchmark.benchmark.loaded", loaded)
        result = gpt2x(*SMALL, f"task.rounds={rounds}", f"task.batch_sizes={batch_sizes}")
        rows = [row for file in launch.rglob("benchmark.csv") for row in read_csv(file)]
        return result, rows

    return run


def test_numbers_are_medians_of_rounds_and_of_their_ratios(play: Callable[..., Any]) -> None:
    result, (ours, theirs) = play(Actor("gpt2x", (1, 2, 6)), Actor("transformers", (9, 4, 6)), rounds=3)
    assert result.code == 0, result.out
    expected = {
        "ms_per_step": 2000,
        "ms_per_step_p10": 1200,
        "ms_per_step_p90": 5200,
        "tokens_per_second": 2 * 4 / 8,
        "ratio_to_transformers": 14 / 8,  # the median of 29 / 5, 14 / 8 and 20 / 20
        "first_token_ms": 2000,
        "peak_rss_mb": 5,
        "load_seconds": 0.25,
        "same_tokens": 1,
    }
    assert {key: float(ours[key]) for key in expected} == pytest.approx(expected)
    assert theirs["ratio_to_transformers"] == "1.0"


def test_without_transformers_there_is_no_ratio(play: Callable[..., Any]) -> None:
    result, (ours,) = play(Actor("gpt2x"))
    assert result.code == 0, result.out
    assert (ours["ratio_to_transformers"], ours["same_tokens"]) == ("", "1.0")


@pytest.mark.parametrize(
    ("engine", "dtype", "margin", "code", "words"),
    [
        ("gpt2x", "float32", 0.5, 1, ["gpt2x float32, batch 2", "in 1 rows, 0 of them near ties", "token 1", "0.5"]),
        ("gpt2x", "float32", 1e-4, 0, ["gpt2x float32, batch 2", "in 1 rows, 1 of them near ties", "0.0001"]),
        ("ctranslate2", "float32", 0.5, 0, ["ctranslate2 float32, batch 2", "0 of them near ties"]),
        ("gpt2x", "bfloat16", 0.5, 0, []),
    ],
)
def test_other_tokens_than_transformers_are_said(
    play: Callable[..., Any], engine: str, dtype: str, margin: float, code: int, words: list[str]
) -> None:
    other = Actor(engine, dtype=dtype, differs=True)
    result, (row, _) = play(other, Actor("transformers", top2_margin=margin), rounds=2)
    assert result.code == code, result.out
    assert ("FAIL" in result.out) == (code == 1)
    assert_in(result.out, *words)
    assert ("other tokens" in result.out) == bool(words)
    assert float(row["same_tokens"]) == (0.25 + 1) / 2  # of the two rows


def test_every_batch_size_gets_its_rows_once(play: Callable[..., Any]) -> None:
    _, rows = play(Actor("transformers"), batch_sizes="[3,1,3]")
    assert [row["batch"] for row in rows] == ["3", "1"]


@pytest.mark.parametrize("method", ["generate", "margin", "peak_rss"])
def test_without_its_baseline_the_rest_is_compared_with_the_next(play: Callable[..., Any], method: str) -> None:
    actors = Actor("gpt2x", differs=True), Actor("ctranslate2"), Actor("transformers", dies=method)
    result, rows = play(*actors, rounds=2)
    assert result.code == 1
    assert "FAIL  transformers float32: left out, has died" in result.out
    assert [(row["engine"], row["ratio_to_transformers"]) for row in rows] == [("gpt2x", ""), ("ctranslate2", "")]
    assert [float(row["same_tokens"]) for row in rows] == [1, (0.25 + 1) / 2]
    assert_in(result.out, "ctranslate2 float32, batch 2: other tokens in 1 rows")


def test_where_all_engines_fail_there_are_no_results(play: Callable[..., Any], launch: Path) -> None:
    result, rows = play(Actor("gpt2x", dies="generate"), rounds=2)
    assert_in(result.error(), "task.engines: none of them could be measured", "gpt2x float32: has died")
    assert rows == []
    assert list(launch.rglob("*.csv")) == []
