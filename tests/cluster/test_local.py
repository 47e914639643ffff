"""hydra/launcher=submitit_local, and what both launchers of submitit refuse. These tests need no Slurm."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from gpt2x.cli.slurm_states import States
from gpt2x.memory import available_memory
from tests.cluster.jobs import SECONDS, jobs_csv, jobs_in, running, wait, write_prompts
from tests.conftest import REPO, Cli, assert_in

LOCAL = ("hydra/launcher=submitit_local", "hydra.launcher.array_parallelism=3", "hydra.launcher.timeout_min=10")


def test_processes_that_are_lost_are_recorded_and_resumed(launch: Path, gpt2x: Cli) -> None:
    write_prompts(launch)
    sweep = launch / "runs" / "sweeps" / "study"
    study = ("sweep=study", *SECONDS, "seed=range(3)")
    with running(launch, *study, *LOCAL, environment=dict(os.environ)) as command:
        os.kill(wait(lambda: jobs_in(sweep).get(0))["pid"], signal.SIGKILL)
        os.kill(wait(lambda: jobs_in(sweep).get(1))["pid"], signal.SIGUSR2)  # as before the end of the time
        result = command.end()
    assert result.code == 3, result.err
    assert "Traceback" not in result.err
    jobs = jobs_csv(sweep)
    assert [job["status"] for job in jobs.values()] == ["killed", "killed", "done"]
    assert_in(jobs["0"]["error"], "process ", "killed, or could not start: see runs/sweeps/study/.submitit/")
    assert jobs["1"]["error"] == "reached its time limit of 10 min; set hydra.launcher.timeout_min higher"
    assert gpt2x("-m", *study).code == 0
    assert [job["attempts"] for job in jobs_csv(sweep).values()] == ["2", "2", "1"]
    assert gpt2x("-m", "sweep=here", *study[1:]).code == 0
    assert (sweep / "generations.csv").read_bytes() == (sweep.with_name("here") / "generations.csv").read_bytes()


def test_the_state_of_a_job_is_that_of_its_own_record() -> None:
    records = [
        "JobID|State|NodeList",
        "9_0|FAILED|a",
        "9_1|RUNNING|[a]",
        "9_[0-3%3]|CANCELLED by 0|None",
        "9_0.0|CANCELLED|a",
    ]
    found = States().read_info("\n".join(records))
    states = {job: record["State"] for job, record in found.items()}
    assert states == {"9_0": "FAILED", "9_1": "RUNNING", "9_2": "CANCELLED by 0", "9_3": "CANCELLED by 0"}
    assert States().read_info(b"") == {}


@pytest.mark.parametrize(("scontrol", "shown"), [("kill -TERM $$", ""), ("exit 1", "CalledProcessError")])
def test_slurm_ends_a_job_while_the_job_puts_itself_back_into_the_queue(scontrol: str, shown: str) -> None:
    code = f"""
import signal, subprocess
from gpt2x.cli.submitit_launchers import _stop
_stop(lambda *_: subprocess.check_call(["sh", "-c", "{scontrol}"]), 1, signal.SIGUSR2, None)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert bool(done.stderr) == bool(shown)
    assert shown in done.stderr


@pytest.mark.parametrize(
    ("launcher", "setting", "words"),
    [
        ("local", "hydra.launcher.mem_gb=4", ["hydra.launcher.mem_gb", "submitit_slurm"]),
        ("local", "hydra.launcher.tasks_per_node=2", ["hydra.launcher.tasks_per_node=2", "set it to 1"]),
        ("local", "hydra.launcher.timeout=2", ["timeout", "LocalQueue"]),
        ("slurm", "hydra.launcher.nodes=2", ["hydra.launcher.nodes=2", "set it to 1"]),
        (
            "slurm",
            "hydra.launcher.timeout_min=1",
            ["signal_delay_s=60", "time limit of 60 s", "hydra.launcher.timeout_min"],
        ),
        ("slurm", "hydra.launcher.timeout_min=90", ["no command sbatch", "hydra/launcher=submitit_local"]),
    ],
)
def test_settings_that_cannot_work_are_refused(
    launcher: str, setting: str, words: list[str], gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(launch))  # without sbatch
    line = gpt2x("-m", "task=generate", "seed=0,1", f"hydra/launcher=submitit_{launcher}", setting).error()
    assert_in(line, *words)
    assert list(launch.iterdir()) == []


def test_slurm_without_accounting(gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, line in (("sbatch", "sbatch: error: not today"), ("sacct", "accounting is disabled"), ("srun", "")):
        (launch / name).write_text(f'#!/bin/sh\necho "{line}" >&2\nexit 1\n')
        (launch / name).chmod(0o755)
    (launch / "scontrol").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(launch))
    result = gpt2x("-m", "task=generate", "seed=0,1", "hydra/launcher=submitit_slurm")
    assert result.code == 2
    assert result.err.splitlines() == [
        "gpt2x: a job that is killed will be waited for until Ctrl-C, as sacct fails: accounting is disabled",
        "gpt2x: error: Slurm refuses the jobs: not today; see conf/hydra/launcher",
    ]


def test_a_job_of_slurm_has_the_memory_that_it_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    used = psutil.Process().memory_info().rss
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "1000")  # MiB
    assert available_memory() == pytest.approx(1000 * 2**20 - used, abs=2**24)
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "0")  # all memory of the node
    assert available_memory() > 1000 * 2**20
