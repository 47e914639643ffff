"""Jobs of a sweep that fail alone, notes, and folders that were there before."""

import json
import shlex
from pathlib import Path

import pytest

from tests.conftest import Cli, Refused, assert_in, read_csv, run_dir

SWEEP = ("-m", "task=generate", "decode.max_new_tokens=1", "hydra.sweep.dir=out")


def test_an_interpolation_that_is_broken_fails_its_own_job(gpt2x: Cli, launch: Path) -> None:
    result = gpt2x(*SWEEP, "seed=1,${oc.env:GPT2X_NOWHERE},2")
    assert result.code == 3
    (line,) = result.err.splitlines()
    assert_in(line, "gpt2x: error: seed", "GPT2X_NOWHERE")
    jobs = read_csv(launch / "out" / "jobs.csv")
    assert [job["status"] for job in jobs] == ["done", "failed", "done"]
    assert_in(jobs[1]["error"], "seed", "GPT2X_NOWHERE")
    assert [row["seed"] for row in read_csv(launch / "out" / "generations.csv")] == ["1", "2"]
    assert gpt2x(*SWEEP, "seed=1,${oc.env:GPT2X_NOWHERE},2").code == 3  # in the same folders
    assert len(read_csv(launch / "out" / "jobs.csv")) == 3


def test_overrides_are_recorded_as_they_were_given(gpt2x: Cli, launch: Path) -> None:
    prompts = [r'prompt="a\${x}"', r'prompt="a\\${x} ${y}"']
    for prompt in prompts:
        assert gpt2x(*SWEEP, prompt, "seed=1,2").code == 0
    jobs = read_csv(launch / "out" / "jobs.csv")
    assert {shlex.split(job["overrides"])[2] for job in jobs} == {*prompts}
    planned = json.loads((launch / "out" / "sweep.json").read_text())["jobs"]
    assert [job["overrides"] for job in planned] == [shlex.split(job["overrides"]) for job in jobs]


def test_an_interpolation_is_converted_to_the_type_of_the_setting(gpt2x: Cli, launch: Path) -> None:
    (launch / "7").mkdir()
    line = gpt2x("task=generate", "prompts_file=${seed}", "seed=7").error()
    assert_in(line, "prompts_file=7", "directory")


def test_a_job_file_that_cannot_be_read_is_a_failed_job(gpt2x: Cli, launch: Path) -> None:
    assert gpt2x(*SWEEP, "seed=1,2").code == 0
    first = read_csv(launch / "out" / "jobs.csv")[0]["job"]
    (launch / "out" / first / "job.json").write_text("junk")
    result = gpt2x(*SWEEP, "seed=3")
    assert result.code == 3
    jobs = read_csv(launch / "out" / "jobs.csv")
    assert {job["job"]: job["status"] for job in jobs}[first] == "failed"
    assert f"out/{first}/job.json" in next(job["error"] for job in jobs if job["job"] == first)
    rows = read_csv(launch / "out" / "generations.csv")
    assert [row["seed"] for row in rows] == ["2", "3"]
    assert list(rows[0])[:2] == ["job", "prompt_id"]  # only the seed was swept, and it is a column already


def test_a_job_that_exits_does_not_stop_the_others(gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpt2x.tasks import generate

    def exits(config, task, run_dir, run=generate.run):  # type: ignore[no-untyped-def]
        if config.seed == 1:
            raise SystemExit(5)
        return run(config, task, run_dir)

    monkeypatch.setattr(generate, "run", exits)
    assert gpt2x(*SWEEP, "seed=1,2").code == 3
    assert [job["status"] for job in read_csv(launch / "out" / "jobs.csv")] == ["failed", "done"]


@pytest.mark.parametrize("override", ['notes="first, with ${x}"', '+notes="first, with ${x}"'])
def test_notes_of_a_sweep(gpt2x: Cli, launch: Path, override: str) -> None:
    assert gpt2x(*SWEEP, "seed=1,2", override).code == 0
    text = "first, with ${x}"
    assert [job["notes"] for job in read_csv(launch / "out" / "jobs.csv")] == [text, text]
    rows = read_csv(launch / "out" / "generations.csv")
    assert [row["notes"] for row in rows] == [text, text]
    assert list(rows[0])[:3] == ["job", "notes", "prompt_id"]
    manifest = json.loads((launch / "out" / rows[0]["job"] / "manifest.json").read_text())
    assert manifest["config"]["notes"] == text
    job = json.loads((launch / "out" / rows[0]["job"] / "job.json").read_text())
    assert job["notes"] == text
    assert "notes" not in job["identity"]["settings"]
    assert job["overrides"][-1].endswith('notes="first, with ${x}"')
    folders = {path.name for path in (launch / "out").iterdir() if path.is_dir()}
    assert gpt2x(*SWEEP, "seed=1,2", "notes=second").code == 0  # the same jobs: a note is no part of their key
    assert {path.name for path in (launch / "out").iterdir() if path.is_dir()} == folders
    jobs = read_csv(launch / "out" / "jobs.csv")  # they are done: nothing has run with the second note
    assert [(job["notes"], job["attempts"]) for job in jobs] == [(text, "1"), (text, "1")]


@pytest.mark.parametrize("task", ["validate", "train", "benchmark"])
def test_notes_are_a_setting_of_every_task(gpt2x: Cli, task: str) -> None:
    assert "\nnotes: mine" in gpt2x(f"task={task}", "notes=mine", "--cfg", "job").out
    line = gpt2x(f"task={task}", "notes=mine", "batch_size=3").error()
    assert_in(line, "batch_size")  # the first that it does not use


def test_notes_of_a_run(gpt2x: Cli, launch: Path) -> None:
    assert gpt2x("task=generate", "decode.max_new_tokens=1", "+notes=hello").code == 0
    assert json.loads((run_dir(launch, "generate") / "manifest.json").read_text())["config"]["notes"] == "hello"


def test_folders_that_were_there_before_are_kept(gpt2x: Cli, launch: Path) -> None:
    (launch / "empty").mkdir()
    for args in (
        ("hydra.run.dir=empty", 'prompt=""'),
        ("-m", "hydra.sweep.dir=empty", "seed=abc,1"),
        ("hydra.run.dir=empty/new/run", 'prompt=""'),
    ):
        gpt2x("task=generate", *args).error()
        assert list(launch.rglob("*")) == [launch / "empty"]


@pytest.mark.parametrize("values", ["seed=1,1,2", "decode.top_p=0.9,0.90,0.5"])
def test_values_that_mean_the_same_job(gpt2x: Cli, launch: Path, values: str) -> None:
    for _ in range(2):
        result = gpt2x("task=generate", "decode.max_new_tokens=1", "prompt=Now", "sweep=mine", values)
        assert result.code == 0
        assert_in(result.out, "2 jobs: 2 done")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("sweep=n${seed}", "seed=1,2"), "sweep"),
        (("-m", "hydra.sweep.dir=o/${seed}", "seed=1,2"), "hydra.sweep.dir"),
        (("-m", "hydra.sweep.subdir=same", "seed=1,2"), "hydra.sweep.subdir"),
        (("-m", "hydra.sweep.subdir=s-${seed}", "decode.top_p=0.5,0.9"), "hydra.sweep.subdir"),
    ],
)
def test_a_folder_is_that_of_one_sweep_and_one_job(refused: Refused, options: tuple[str, ...], word: str) -> None:
    assert_in(refused("task=generate", "decode.max_new_tokens=1", *options), word)


def test_jobs_in_another_order_with_numbers_as_folders(gpt2x: Cli, launch: Path) -> None:
    settings = ("-m", "task=generate", "decode.max_new_tokens=1", "hydra.sweep.dir=out")
    for seeds in ("seed=1,2", "seed=2,1"):
        result = gpt2x(*settings, "hydra.sweep.subdir=${hydra.job.num}", seeds)
        assert result.code == 0
    assert_in(result.out, "2 jobs: 2 done")
    assert "stale" not in result.out


@pytest.mark.parametrize("name", ["1e3", "007", "true", "2026-11-28"])
def test_a_name_is_a_text(gpt2x: Cli, launch: Path, name: str) -> None:
    assert gpt2x("task=generate", "decode.max_new_tokens=1", f"sweep={name}").code == 0
    assert (launch / "runs" / "sweeps" / name / "jobs.csv").is_file()
