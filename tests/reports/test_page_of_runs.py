"""task=report on runs that the command line has made: which of them are on the page, and the commands that it names."""

import shlex
from pathlib import Path

import pytest

from gpt2x.reports.page.html import render
from gpt2x.reports.page.study import read_study
from gpt2x.runs import code
from tests.conftest import Cli, assert_in, read_csv
from tests.reports.page import Page, page_of


def test_the_command_of_a_search_makes_it_again(gpt2x: Cli, launch: Path) -> None:
    settings = ("task=generate", "decode.max_new_tokens=2", "decode.top_k=interval(1,9)", "hydra/launcher=basic")
    search = (*settings, "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra/sweeper/sampler=random")
    assert gpt2x("-m", *search, "hydra.sweep.dir=first").code == 0
    (command,) = [cell for cell in page_of(launch / "first").cells if cell.startswith("python -m gpt2x -m ")]
    arguments = shlex.split(command)[3:]
    assert sorted(arguments) == sorted(["-m", *search])
    assert gpt2x(*arguments, "hydra.sweep.dir=again").code == 0
    first, again = (launch / name / "generations.csv" for name in ("first", "again"))
    assert first.read_bytes() == again.read_bytes()


def test_the_command_of_a_named_sweep_names_it(gpt2x: Cli, launch: Path) -> None:
    settings = ("sweep=mine", "task=generate", "decode.max_new_tokens=1", "hydra.mode=MULTIRUN")
    assert gpt2x(*settings, "hydra.job.name=x").code == 0
    page = page_of(launch / "runs" / "sweeps" / "mine")
    (command,) = [cell for cell in page.cells if cell.startswith("python -m gpt2x -m ")]
    assert sorted(shlex.split(command)[4:]) == sorted([*settings[:-1], "hydra.job.name=x"])


def test_jobs_that_others_have_replaced_are_left_out(gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = ("-m", "task=generate", "prompt_file=text.txt", "decode.max_new_tokens=2", "decode.top_p=0.5,1.0")
    for text, options in (("Juliet", ()), ("zxq qqz", ("rerun=stale",))):
        (launch / "text.txt").write_text(text)
        assert gpt2x(*sweep, "hydra.sweep.dir=runs/sweep", *options).code == 0
    study = read_study(launch / "runs")
    page = Page(render(study))
    assert_in(page.text, "2 runs in", "Left out, as later jobs have replaced them: 2 jobs. jobs.csv says why.")
    assert "Juliet" not in page.text
    rows = [row for result in study.groups["generate"].results for row in result.rows]
    table = read_csv(launch / "runs" / "sweep" / "generations.csv")
    assert [f"{row.logprob:.9g}" for row in rows] == [row["logprob"] for row in table]
    monkeypatch.setattr(code, "_gpt2x", lambda: {"gpt2x": "9"})
    assert_in(page_of(launch / "runs").text, "replaced them: 2 jobs. Stale: 2 jobs. jobs.csv says why.")


def test_a_table_that_was_altered_is_not_on_the_page(gpt2x: Cli, launch: Path) -> None:
    given = ("task=generate", "prompt=Juliet", "decode.max_new_tokens=1")
    assert gpt2x(*given, "hydra.run.dir=runs/one").code == 0
    assert gpt2x("-m", *given, "seed=1,2", "hydra.sweep.dir=runs/sweep").code == 0
    for file in launch.glob("runs/**/generations.csv"):
        file.write_bytes(file.read_bytes().replace(b'"Juliet"', b'"Romeo!"'))
    page = page_of(launch / "runs")
    assert_in(page.text, "3 damaged", "generations.csv is not what the job wrote")
    assert "Romeo!" not in page.text


def test_a_prompt_that_a_file_replaces_is_not_on_the_page(gpt2x: Cli, launch: Path) -> None:
    (launch / "text.txt").write_text("Romeo")
    for number, prompt in enumerate(("prompt=Juliet", "prompt_file=text.txt")):
        assert gpt2x("task=generate", prompt, "decode.max_new_tokens=1", f"hydra.run.dir=runs/{number}").code == 0
    assert gpt2x("task=collect", "task.runs=runs", "hydra.run.dir=table").code == 0
    page = page_of(launch / "runs")
    assert_in(page.text, "prompt: Juliet, null", "prompt_file: null, text.txt")
    assert "quick brown fox" not in page.text + (launch / "table" / "generations.csv").read_text()
