"""job.json: a job describes itself on disk, from its start to every end; others need nothing else to know of it."""

import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gpt2x.cli.job import run_job
from gpt2x.errors import DoesNotFitError
from gpt2x.runs.collect import collect_sweep
from gpt2x.runs.job import Status, read_job
from gpt2x.tasks.registry import TABLES, TASKS
from tests.conftest import NANO, REPO, Cli, read_csv
from tests.parity.conftest import PLAIN

FAST = ("task=generate", "decode.max_new_tokens=2")


def job_of(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "job.json").read_text())
    assert isinstance(content, dict)
    return content


def test_a_job_that_is_done(gpt2x: Cli, launch: Path) -> None:
    assert gpt2x(*FAST, "seed=3", "hydra.run.dir=out").code == 0
    job = job_of(launch / "out")
    assert (job["task"], job["status"], job["passed"], job["error"], job["attempt"]) == (
        *("generate", "done", True, None, 1),
    )
    assert job["overrides"] == [*FAST, "seed=3"]
    assert (job["host"], job["pid"]) == (socket.gethostname(), os.getpid())
    assert 0 < job["seconds"] < time.time() - job["started"] + 1
    assert job["identity"]["settings"]["seed"] == 3
    assert "subject.target" not in job["identity"]["settings"]  # which generate does not use
    assert len(job["identity"]["inputs"]["weights"]) == 5  # weights, config.json, and three of the tokenizer


@pytest.mark.parametrize(
    ("given", "prompt"),
    [
        (("prompt=Juliet",), "Juliet"),
        (("prompt_file=text.txt",), None),
        (("prompts_file=text.txt",), None),
        (("prompts_file=text.txt", "prompt_id=56091994"), None),
        (("prompts_file=nowhere.txt",), None),
    ],
)
def test_a_prompt_that_a_file_replaces_is_no_setting_of_the_job(
    gpt2x: Cli, launch: Path, given: tuple[str, ...], prompt: str | None
) -> None:
    (launch / "text.txt").write_text("Juliet")
    gpt2x(*FAST, *given, "-m", "hydra.sweep.dir=out", "hydra.sweep.subdir=job")
    job = read_job(launch / "out" / "job")
    assert job is not None
    assert (job.status is Status.DONE) == ("nowhere" not in given[0])
    assert job.settings["prompt"] == prompt
    assert (job.settings["seed"], job.settings["decode.max_new_tokens"]) == (0, 2)


def test_parity_that_does_not_hold_is_in_it(gpt2x: Cli, launch: Path) -> None:
    target = f"subject.target={REPO / 'tests' / 'subjects' / 'plain.py'}:act_erf"
    assert gpt2x(target, "task.stages=[logits]", "hydra.run.dir=out").code == 1
    assert (job_of(launch / "out")["status"], job_of(launch / "out")["passed"]) == ("done", False)


def test_it_is_written_before_the_task_starts(gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def look(config: Any, task: Any, run_dir: Path) -> None:
        seen.append(job_of(run_dir))
        raise KeyboardInterrupt

    monkeypatch.setattr("gpt2x.tasks.generate.run", look)
    assert gpt2x(*FAST).code == 130
    assert [(job["status"], job["seconds"]) for job in seen] == [("running", None)]
    assert list(launch.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (RuntimeError("a bug"), 3, "failed"),
        (DoesNotFitError("too big"), 0, "skipped"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=["bug", "memory", "interrupt"],
)
def test_every_end_of_a_job_of_a_sweep_is_in_its_folder(
    gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, status: str
) -> None:
    def fail(config: Any, task: Any, run_dir: Path) -> None:
        (run_dir / "generations.csv").write_text("half a row")
        raise error

    monkeypatch.setattr("gpt2x.tasks.generate.run", fail)
    assert gpt2x("-m", *FAST, "seed=1", "hydra.sweep.dir=out").code == code
    (row,) = read_csv(launch / "out" / "jobs.csv")
    job = job_of(launch / "out" / row["job"])
    assert (job["status"], row["status"]) == (status, status)
    assert row["error"] == job["error"]
    assert not (launch / "out" / "generations.csv").exists()
    a_bug = isinstance(error, RuntimeError)  # of a bug everything stays, for somebody to look at
    assert (launch / "out" / row["job"] / "generations.csv").exists() == a_bug


def test_a_killed_job_says_running_and_counts_as_killed(gpt2x: Cli, gpt2x_process: Cli, launch: Path) -> None:
    arguments = [sys.executable, "-m", "gpt2x", "-m", "task=generate", "hydra.sweep.dir=out", "seed=1,2"]
    process = subprocess.Popen([*arguments, "decode.max_new_tokens=200", "decode.num_samples=500"], cwd=launch)
    try:
        deadline = time.time() + 120
        while not list(launch.glob("out/*/state.json")):
            assert time.time() < deadline
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (folder,) = (each.parent for each in launch.glob("out/*/job.json"))
    job = read_job(folder)
    assert job is not None
    assert (job.status, job.state) == (Status.RUNNING, Status.KILLED)
    assert [each.state for each in collect_sweep(launch / "out", TABLES)] == [Status.KILLED, Status.WAITING]
    assert [row["status"] for row in read_csv(launch / "out" / "jobs.csv")] == ["killed", "waiting"]


def test_a_young_process_of_the_same_number_is_not_the_job(gpt2x: Cli, launch: Path) -> None:
    assert gpt2x(*FAST, "hydra.run.dir=out").code == 0
    file = launch / "out" / "job.json"
    file.write_text(json.dumps(job_of(launch / "out") | {"status": "running"}))
    job = read_job(launch / "out")
    assert job is not None
    assert job.state is Status.RUNNING  # this process runs
    job.started = 1.0  # in 1970, long before it was born
    assert job.state is Status.KILLED


def test_attempts_are_counted(gpt2x: Cli, launch: Path) -> None:
    for attempt in (1, 2):
        assert gpt2x(*FAST, "hydra.run.dir=out").code == 0
        assert job_of(launch / "out")["attempt"] == attempt


def test_a_refused_run_leaves_an_earlier_one_as_it_was(gpt2x: Cli, launch: Path) -> None:
    assert gpt2x(*FAST, "hydra.run.dir=out").code == 0
    before = {file.name: file.read_bytes() for file in (launch / "out").iterdir()}
    gpt2x(*FAST, "decode.top_k=0", "hydra.run.dir=out").error()
    assert {file.name: file.read_bytes() for file in (launch / "out").iterdir()} == before


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"format": 99}', '{"format": 1, "status": "ended"}'])
def test_a_job_that_cannot_be_read_is_one_line(gpt2x: Cli, launch: Path, content: str) -> None:
    (launch / "out").mkdir()
    (launch / "out" / "job.json").write_text(content)
    assert "job.json" in gpt2x(*FAST, "hydra.run.dir=out").error()
    assert (launch / "out" / "job.json").read_text() == content


def test_the_task_function_pickles() -> None:
    """Launchers send it to other processes by name."""
    assert pickle.loads(pickle.dumps(run_job)) is run_job
    assert len(pickle.dumps(run_job)) < 100


def test_a_sweep_is_collected_from_its_folders_alone(gpt2x: Cli, launch: Path) -> None:
    assert gpt2x("-m", *FAST, "seed=3,1,2", "hydra.sweep.dir=out").code == 0
    tables = {name: (launch / "out" / name).read_bytes() for name in ("jobs.csv", "generations.csv")}
    shutil.move(launch / "out", launch / "elsewhere")
    for name in (*tables, "sweep.json"):
        (launch / "elsewhere" / name).unlink()
    collect_sweep(launch / "elsewhere", TABLES)
    assert {name: (launch / "elsewhere" / name).read_bytes() for name in tables} == tables


def test_a_second_command_in_a_sweep_s_folder_adds_its_jobs(gpt2x: Cli, launch: Path) -> None:
    assert gpt2x("-m", *FAST, "seed=3,1", "hydra.sweep.dir=out").code == 0
    assert gpt2x("-m", *FAST, "seed=2,1", "hydra.sweep.dir=out").code == 0
    rows = read_csv(launch / "out" / "generations.csv")
    assert [row["seed"] for row in rows] == ["3", "2", "1"]  # those of the last command, in its order, are the last
    assert [row["attempts"] for row in read_csv(launch / "out" / "jobs.csv")] == ["1", "1", "1"]
    sweep = json.loads((launch / "out" / "sweep.json").read_text())
    assert [each["overrides"][-1] for each in sweep["invocations"]] == ["seed=3,1", "seed=2,1"]
    assert [each["job"] for each in sweep["jobs"]] == [row["job"] for row in rows]


def keys(gpt2x: Cli, launch: Path, *args: str) -> list[str]:
    shutil.rmtree(launch / "keys", ignore_errors=True)
    gpt2x("-m", *FAST, *args, "hydra.sweep.dir=keys")
    return [row["job"] for row in read_csv(launch / "keys" / "jobs.csv")]


def test_the_key_of_a_job_goes_by_content(gpt2x: Cli, launch: Path, tiny_dir: Path, tmp_path: Path) -> None:
    """Neither the order of overrides nor a default that is spelled out nor the place of the weights counts."""
    (key,) = keys(gpt2x, launch, f"weights.path={tiny_dir}", "seed=4", "decode.top_k=5")
    moved = tmp_path / "moved"
    shutil.copytree(tiny_dir, moved)
    for file in moved.iterdir():
        os.utime(file, (1, 1))
    assert keys(gpt2x, launch, "decode.top_k=5", "decode.top_p=null", "seed=4", f"weights.path={moved}") == [key]
    assert keys(gpt2x, launch, f"weights.path={tiny_dir}", "seed=5", "decode.top_k=5") != [key]
    assert keys(gpt2x, launch, f"weights.path={tiny_dir}", "seed=4", "decode.top_k=5", "batch_size=1") != [key]
    content = bytearray((moved / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (moved / "model.safetensors").write_bytes(content)
    assert keys(gpt2x, launch, f"weights.path={moved}", "seed=4", "decode.top_k=5") != [key]


def test_the_key_of_a_job_survives_a_new_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that a later gpt2x adds, at its default, does not rename the folders of old sweeps."""
    from gpt2x.cli import identity

    settings = {"task": {"name": "generate"}, "seed": 1, "model": {"name": "auto"}, "weights": {"source": "random"}}
    defaults = {"task.name": "generate", "seed": 0, "model.name": "auto", "weights.source": "local"}
    monkeypatch.setattr(identity, "default_settings", lambda task: defaults)
    key = identity.key_of_job(settings)
    monkeypatch.setattr(identity, "default_settings", lambda task: defaults | {"decode.new": 7})
    assert identity.key_of_job(settings | {"decode": {"new": 7}}) == key
    assert identity.key_of_job(settings | {"decode": {"new": 8}}) != key


def test_every_task_declares_what_it_writes(gpt2x: Cli, launch: Path) -> None:
    """So that the clean-up after a failure knows all of it."""
    (launch / "text.txt").write_text("To be, or not to be, that is the question. " * 200)
    arguments = {
        "validate": ("task.stages=[layers]", f"subject.target={PLAIN}:act_erf", "task.suggest=true"),
        "generate": ("decode.max_new_tokens=2", "decode.logprobs=2"),
        "train": (f"weights.path={NANO}", "task.data=text.txt", "task.steps=1", "task.eval_every=1"),
        "evaluate": ("task.data=text.txt",),
        "benchmark": ("task.engines=[gpt2x]", "task.batch_sizes=[1]", "task.new_tokens=2", "task.rounds=1"),
        "inspect": (),
        "export": ("task.format=pt",),
        "report": ("task.runs=generate",),
    }
    assert {*arguments, "collect", "download"} == set(TASKS)  # download needs a hub: tests/checkpoints/test_download.py
    for name in arguments:
        task = TASKS[name]
        assert gpt2x(f"task={name}", *arguments[name], f"hydra.run.dir={name}").code == (name == "validate")
        state = {task.state} if task.state is not None and name != "generate" else set()  # generate removes it
        written = {file.name for file in (launch / name).iterdir()} - {"job.json", "manifest.json", "timing.csv"}
        assert written - state == set(task.outputs)
