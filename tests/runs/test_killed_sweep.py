"""A sweep that is killed with SIGKILL again and again ends as if nothing had happened; two commands share a sweep."""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

from tests.cluster.jobs import wait
from tests.conftest import Cli, read_csv
from tests.kill_sweep import kill_sweep


def test_a_sweep_that_is_killed_again_and_again(launch: Path) -> None:
    report = kill_sweep(launch, jobs=30, kills=3, chance=random.Random(2))
    assert report.kills == 3


def test_two_commands_at_once_share_the_jobs(gpt2x: Cli, launch: Path) -> None:
    settings = ("task=generate", "prompt=Now", "decode.max_new_tokens=20", "decode.num_samples=4", "seed=range(0,8)")
    command = [sys.executable, "-m", "gpt2x", "sweep=both", *settings]
    processes = [subprocess.Popen(command, cwd=launch, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ends = [(process.communicate()[1], process.returncode) for process in processes]
    assert [code for _, code in ends] == [0, 0], ends
    root = launch / "runs" / "sweeps" / "both"
    jobs = read_csv(root / "jobs.csv")
    assert [(job["status"], job["attempts"]) for job in jobs] == [("done", "1")] * 8
    assert not any("Traceback" in stderr or "error" in stderr for stderr, _ in ends), ends
    assert gpt2x("-m", "hydra.sweep.dir=alone", *settings).code == 0
    assert (root / "generations.csv").read_bytes() == (launch / "alone" / "generations.csv").read_bytes()


def test_a_job_of_another_command_is_taken_over_when_that_is_killed(launch: Path) -> None:
    """Also if the other one has taken the job after this command's first look at it."""
    settings = ("task=generate", "prompt=Now", "decode.max_new_tokens=100")
    root = launch / "runs" / "sweeps" / "both"

    def start(samples: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "gpt2x", "sweep=both", *settings, f"decode.num_samples={samples}"]
        return subprocess.Popen(command, cwd=launch, stderr=subprocess.PIPE, text=True)

    def running(process: subprocess.Popen[str]) -> bool:
        jobs = [json.loads(file.read_text()) for file in root.glob("*/job.json")]
        return any(job["pid"] == process.pid and job["status"] == "running" for job in jobs)

    first = start("80,81,200")
    wait(lambda: running(first), seconds=120)
    second = start("200")
    assert first.stderr is not None
    while "left to it" not in (line := first.stderr.readline()):
        assert line, "the first command did not meet the job of the second"
    assert running(second)
    second.send_signal(signal.SIGKILL)
    second.communicate()
    _, printed = first.communicate()
    assert first.returncode == 0, printed
    assert [job["status"] for job in read_csv(root / "jobs.csv")] == ["done"] * 3
