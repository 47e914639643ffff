"""Input files of a sweep that change, or get other names, between its commands and while it runs."""

import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cli, assert_in, read_csv

SWEEP = ("sweep=mine", "task=generate", "decode.max_new_tokens=1")
ROOT = Path("runs", "sweeps", "mine")


def prompts() -> list[str]:
    """The prompts in the joined table."""
    return [row["prompt"] for row in read_csv(ROOT / "generations.csv")]


def write(name: str, text: str) -> None:
    Path(name).write_text(f"{text}\n", encoding="utf-8")


def test_a_file_that_is_renamed_is_the_same_input(gpt2x: Cli, launch: Path) -> None:
    """As with a checkpoint that is kept under another name while a new one takes its place."""
    write("p.txt", "old")
    assert gpt2x(*SWEEP, "prompts_file=p.txt").code == 0
    Path("p.txt").rename("kept.txt")
    write("p.txt", "new")
    for options in ((), ("rerun=stale",)):
        result = gpt2x(*SWEEP, "prompts_file=kept.txt,p.txt", *options)
        assert result.code == 0
        assert_in(result.out, "2 jobs: 2 done\n")
        rows = read_csv(ROOT / "generations.csv")
        assert [(row["prompts_file"], row["prompt"]) for row in rows] == [("kept.txt", "old"), ("p.txt", "new")]
        assert [job["stale"] for job in read_csv(ROOT / "jobs.csv")] == ["", ""]


def test_the_newest_results_count_after_a_second_change(gpt2x: Cli, launch: Path) -> None:
    seeds = "seed=range(5)"
    for text, options in (("one", ()), ("two", ("rerun=stale",)), ("three", ())):
        write("p.txt", text)
        result = gpt2x(*SWEEP, "prompts_file=p.txt", seeds, *options)
        assert result.code == 0
    assert prompts() == ["two"] * 5
    assert_in(result.out, "10 jobs: 10 done\n5 replaced", "\n5 stale")


def test_a_file_that_changes_while_the_sweep_runs(gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpt2x.tasks import generate

    def changing(config: Any, task: Any, run_dir: Path, run: Any = generate.run) -> Any:
        write("p.txt", "two")
        return run(config, task, run_dir)

    write("p.txt", "one")
    time.sleep(0.01)  # the digest of a file is kept as long as its time does not change
    with monkeypatch.context() as patch:
        patch.setattr(generate, "run", changing)
        result = gpt2x(*SWEEP, "prompts_file=p.txt", "seed=1,2,3")
    assert result.code == 3
    assert_in(result.err, "the input files of 2 jobs have changed", "start the sweep again")
    result = gpt2x(*SWEEP, "prompts_file=p.txt", "seed=1,2,3", "rerun=stale")
    assert result.code == 0, result.err
    assert prompts() == ["two"] * 3
    assert {job["status"] for job in read_csv(ROOT / "jobs.csv")} == {"done"}


def test_a_column_of_the_prompts_does_not_hide_a_setting(gpt2x: Cli, launch: Path) -> None:
    Path("p.csv").write_text("prompt,seed_of,decode.top_k\na,x,y\n", encoding="utf-8")
    assert gpt2x(*SWEEP, "prompts_file=p.csv", "decode.top_k=1,2").code == 0
    rows = read_csv(ROOT / "generations.csv")
    assert [(row["decode.top_k"], row["prompt.decode.top_k"]) for row in rows] == [("1", "y"), ("2", "y")]
