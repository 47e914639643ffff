"""hydra/sweeper=optuna: a search for the best job, which chooses the same jobs again when it is started again."""

import json
from pathlib import Path

import pytest
import yaml
from hydra.core.config_store import ConfigStore

from gpt2x.config.objective import Objective
from gpt2x.reports.search import best_of, show_best
from gpt2x.runs.found import Found
from gpt2x.runs.job import Identity, Job, Status
from tests.conftest import Cli, Refused, assert_in, read_csv

SEARCH = ("-m", "hydra/sweeper=optuna", "task=generate", "prompt=Juliet", "decode.max_new_tokens=6")
SPACE = ("decode.top_p=interval(0.5,1)", "decode.temperature=choice(0.7,1.5)")


def trials(folder: Path) -> list[tuple[str, float]]:
    """The overrides that were searched and the number of each job, in the order of the jobs."""
    return [(" ".join(job["overrides"].split()[:2]), float(job["objective"])) for job in read_csv(folder / "jobs.csv")]


def test_a_search_ends_with_its_best_job_and_goes_on_with_the_same_jobs(gpt2x: Cli, launch: Path) -> None:
    command = (*SEARCH, *SPACE, "hydra.sweep.dir=out")
    first = gpt2x(*command, "hydra.sweeper.n_trials=2")
    assert (first.code, first.err) == (0, "")
    before = trials(launch / "out")
    assert len({overrides for overrides, _ in before}) == 2
    *_, best_line, _ = first.out.splitlines()
    overrides, number = max(before, key=lambda trial: trial[1])  # the likeliest text is the best
    assert best_line.startswith(f"best logprob {number:.6g}: {overrides} (job ")
    job = json.loads((launch / "out" / best_line[:-1].rpartition(" ")[2] / "job.json").read_text())
    found = yaml.safe_load((launch / "out" / "optimization_results.yaml").read_text())
    assert job["objective"] == job["numbers"]["logprob"] == found["best_value"]

    second = gpt2x(*command, "hydra.sweeper.n_trials=4")
    assert second.code == 0
    after = trials(launch / "out")
    assert after[:2] == before
    assert len({overrides for overrides, _ in after}) == 4
    number = max(number for _, number in after)
    assert second.out.splitlines()[-2].startswith(f"best logprob {number:.6g}: ")


def test_another_seed_of_the_sampler_chooses_other_jobs(gpt2x: Cli, launch: Path) -> None:
    for seed in (0, 1):
        options = (f"hydra.sweeper.sampler.seed={seed}", "hydra/sweeper/sampler=random", "hydra.sweeper.n_trials=1")
        assert gpt2x(*SEARCH, *SPACE, *options, f"hydra.sweep.dir=out{seed}").code == 0
    assert trials(launch / "out0") != trials(launch / "out1")


def test_a_job_that_fails_is_a_failed_trial(gpt2x: Cli, launch: Path) -> None:
    result = gpt2x(*SEARCH, "decode.top_k=choice(0,3)", "hydra.sweep.dir=out", "hydra.sweeper.n_trials=8")
    assert result.code == 3
    (line,) = (line for line in result.err.splitlines() if "error" in line)
    assert line.startswith("gpt2x: error: decode.top_k=0")
    jobs = read_csv(launch / "out" / "jobs.csv")
    assert {(job["status"], job["objective"] == "") for job in jobs} == {("failed", True), ("done", False)}
    assert [job["attempts"] for job in jobs] == ["1", "1"]
    assert "decode.top_k=3 (job " in result.out


def test_a_search_without_a_result(gpt2x: Cli, launch: Path) -> None:
    result = gpt2x(*SEARCH, "decode.top_k=choice(0,-1)", "hydra.sweeper.n_trials=2", "hydra.sweep.dir=failed")
    assert result.code == 3
    assert result.err.splitlines()[-1].endswith("the search has no result: no job that is done has computed logprob")
    assert {job["status"] for job in read_csv(launch / "failed" / "jobs.csv")} == {"failed"}
    short = ("decode.min_new_tokens=1", "decode.max_new_tokens=choice(1,2)", "task.score=repetition")
    result = gpt2x(*SEARCH[:-1], *short, "hydra.sweeper.n_trials=1", "hydra.sweep.dir=short")
    assert result.error().endswith("no job that is done has computed repetition")
    assert {job["status"] for job in read_csv(launch / "short" / "jobs.csv")} == {"done"}


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_only_jobs_of_this_search_can_be_its_best(gpt2x: Cli, launch: Path, direction: str) -> None:
    (launch / "text.txt").write_text("Juliet")
    options = (*SPACE[:1], "hydra.sweeper.n_trials=2", "hydra.sweep.dir=out", f"hydra.sweeper.direction={direction}")
    assert gpt2x(*SEARCH, *options).code == 0  # another search in the same folder
    command = (*SEARCH[:3], "prompt_file=text.txt", "decode.max_new_tokens=6", *options)
    assert gpt2x(*command).code == 0
    (launch / "text.txt").write_text("zxq qqz")
    result = gpt2x(*command, "rerun=stale")  # replaces the jobs of the previous command
    new = {row["job"]: float(row["objective"]) for row in read_csv(launch / "out" / "jobs.csv")[-2:]}
    number = {"minimize": min, "maximize": max}[direction](new.values())
    (line,) = (line for line in result.out.splitlines() if line.startswith("best "))
    assert line.startswith(f"best logprob {number:.6g}: decode.top_p=")
    assert new[line[:-1].rpartition(" ")[2]] == number
    failed = gpt2x(*SEARCH, *options[1:], "decode.top_k=choice(0,-1)")
    assert failed.code == 3
    assert failed.err.splitlines()[-1].endswith("the search has no result: no job that is done has computed logprob")
    assert "best " not in failed.out


def test_a_damaged_job_is_not_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    def found(name: str, number: float, state: Status) -> Found:
        return Found(name, Path(name), Job("generate", [], {}, Identity({}), numbers={"logprob": number}), state)

    jobs = [found("a", -1, Status.DAMAGED), found("b", -3, Status.DONE), found("c", -2, Status.DONE)]
    show_best(jobs, Objective("logprob", maximize=True))
    assert capsys.readouterr().out == "best logprob -2 (job c)\n"  # without settings, as none is varied
    assert best_of(jobs[:1], Objective("logprob", maximize=True)) is None


@pytest.mark.parametrize(
    ("options", "choose"),
    [
        (("task.score=distinct_2",), max),
        (("task.score=repetition",), min),
        (("task.score=distinct_2", "hydra.sweeper.direction=minimize"), min),
    ],
)
def test_the_direction_is_that_of_the_number(gpt2x: Cli, launch: Path, options: tuple[str, ...], choose: type) -> None:
    sweep = ("model=nano", "weights=choice(random,local)", "hydra.sweeper.n_trials=3")  # the former repeats a token
    result = gpt2x(*SEARCH, "decode=greedy", *sweep, *options, "hydra.sweep.dir=out")
    numbers = [number for _, number in trials(launch / "out")]
    assert len(set(numbers)) == 2
    name = options[0].partition("=")[2]
    assert f"best {name} {choose(numbers):.6g}: weights=" in result.out


@pytest.mark.parametrize("text", ["To be, or not", "it's \"x\\", "${x}", "007"])
def test_a_text_is_chosen_as_it_was_given(gpt2x: Cli, launch: Path, text: str) -> None:
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    options = ("decode.max_new_tokens=1", "hydra.sweeper.n_trials=1", "hydra.sweep.dir=out")
    result = gpt2x(*SEARCH[:3], f"prompt=choice({quoted})", *options)
    assert (result.code, result.err) == (0, "")
    assert [row["prompt"] for row in read_csv(launch / "out" / "generations.csv")] == [text]


def test_an_interval_of_a_whole_number_has_whole_numbers(gpt2x: Cli, launch: Path) -> None:
    result = gpt2x(*SEARCH, "decode.top_k=tag(log,interval(1,9))", "hydra.sweeper.n_trials=2", "hydra.sweep.dir=out")
    assert (result.code, result.err) == (0, "")
    assert {row["top_k"] for row in read_csv(launch / "out" / "generations.csv")} <= set("123456789")


def test_a_preset_can_be_a_search(gpt2x: Cli, launch: Path) -> None:
    (launch / "experiment").mkdir()
    preset = """# @package _global_
defaults:
  - override /task: generate
  - override /hydra/sweeper: optuna
decode: {max_new_tokens: 2}
hydra:
  mode: MULTIRUN
  sweeper:
    n_trials: 2
    params: {decode.top_k: "interval(1, 5)", prompt: '"a, b"'}
"""
    (launch / "experiment" / "find.yaml").write_text(preset)
    result = gpt2x("--config-dir=.", "experiment=find", "hydra.sweep.dir=out")
    assert (result.code, result.err) == (0, "")
    assert [row["prompt"] for row in read_csv(launch / "out" / "generations.csv")] == ["a, b"] * 2
    assert "\nbest logprob " in result.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("hydra.sweeper.n_trials=0",), ("hydra.sweeper.n_trials=0", "at least 1")),
        (("hydra.sweeper.n_trials=few",), ("hydra.sweeper.n_trials", "few")),
        (("hydra.sweeper.n_jobs=0",), ("hydra.sweeper.n_jobs=0", "at least 1")),
        (("hydra.sweeper.max_failure_rate=2",), ("hydra.sweeper.max_failure_rate=2", "at least 0 and at most 1")),
        (("hydra.sweeper.max_failure_rate=nan",), ("hydra.sweeper.max_failure_rate=nan", "at most 1")),
        (("hydra.sweeper.storage=sqlite:///x.db",), ("hydra.sweeper.storage", "no database", "same command goes on")),
        (("hydra.sweeper.study_name=mine",), ("hydra.sweeper.study_name", "no database", "same command goes on")),
        (("hydra.sweeper.direction=up",), ("hydra.sweeper.direction=up", "minimize, maximize")),
        (("hydra.sweeper.trials=3",), ("hydra.sweeper.trials",)),
        (("hydra/sweeper/sampler=best",), ("hydra/sweeper/sampler=best", "tpe")),
        (("hydra/sweeper/sampler=grid",), ("hydra/sweeper/sampler=grid", "leave out hydra/sweeper=optuna")),
        (("task.score=bleu",), ("task.score=bleu", "logprob, distinct_2, repetition")),
    ],
)
def test_settings_with_which_no_search_begins(refused: Refused, options: tuple[str, ...], words: tuple[str]) -> None:
    assert_in(refused(*SEARCH, *SPACE, *options), *words)


def test_a_search_is_a_sweep(refused: Refused) -> None:
    assert_in(refused("task=generate", "hydra/sweeper=optuna", "decode.top_k=choice(1,2)"), "hydra/sweeper", "add -m")


def test_the_plugin_is_not_installed(
    gpt2x: Cli, refused: Refused, launch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gpt2x("--version").code == 0  # Hydra's plugins are imported
    options = ConfigStore.instance().repo["hydra"]["sweeper"]
    for name in ("optuna.yaml", "optuna_plugin.yaml"):
        monkeypatch.delitem(options, name, raising=False)
    assert_in(refused(*SEARCH, *SPACE), "hydra/sweeper=optuna", "pip install 'gpt2x[optuna]'")
