"""Sweeps on a real Slurm: hydra/launcher=submitit_slurm. The jobs run on a node that has another host name."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.slurm import ARRAY_SIZE, Cluster
from tests.conftest import REPO, Result, read_csv

SLURM = ("hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=2")
SECONDS = ("task=generate", "prompts_file=prompts.txt", "batch_size=4", "decode.max_new_tokens=10")
"""A job of some seconds, which notes each finished sample, so that it can be continued."""
MINUTES = ("task=generate", "prompts_file=prompts.txt", "batch_size=1", "decode.max_new_tokens=1000")


class Command:
    """`gpt2x -m ...` in a process of its own, in the folder `launch`."""

    def __init__(self, launch: Path, cluster: Cluster, *args: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gpt2x", "-m", *args],
            cwd=launch,
            env=cluster.environment | {"PYTHONPATH": str(REPO)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, seconds: float = 180) -> Result:
        """Waits for the end of the command."""
        out, err = self.process.communicate(timeout=seconds)
        return Result(self.process.returncode, out, err)


Start = Callable[..., Command]


@pytest.fixture
def start(launch: Path, cluster: Cluster) -> Iterator[Start]:
    """Starts a command, which does not outlive the test."""
    (launch / "prompts.txt").write_text("".join(f"The {number}th night\n" for number in range(60)), encoding="utf-8")
    commands = []

    def run(*args: str) -> Command:
        commands.append(Command(launch, cluster, *args))
        return commands[-1]

    yield run
    for command in commands:
        if command.process.poll() is None:
            command.process.kill()
            command.process.communicate()
            cluster.ask("scancel", "--user=root")


def wait(found: Callable[[], Any], seconds: float = 120) -> Any:
    """Waits until `found` returns something, and returns that."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)
    return value


def jobs_in(sweep: Path) -> dict[str, dict[str, Any]]:
    """Seed -> the content of job.json, with the job's `folder`, of those jobs that have begun to write samples."""
    found = {}
    for file in sweep.glob("*/job.json"):
        job = json.loads(file.read_text(encoding="utf-8")) | {"folder": file.parent}
        if (file.parent / "state.json").exists() or job["status"] == "done":
            found[job["chosen"]["seed"]] = job
    return found


def states(sweep: Path) -> dict[str, tuple[str, str]]:
    """Seed -> status and attempts, from jobs.csv."""
    rows = read_csv(sweep / "jobs.csv")
    return {row["overrides"].partition("seed=")[2]: (row["status"], row["attempts"]) for row in rows}


def test_a_sweep_goes_out_as_job_arrays_with_the_same_tables(start: Start, launch: Path, cluster: Cluster) -> None:
    sweep = ("task=generate", "prompt=Juliet", "decode.max_new_tokens=8", f"seed=range({ARRAY_SIZE + 1})")
    result = start(*sweep, *SLURM, "hydra.sweep.dir=slurm").end()
    assert result.code == 0, result.err
    sent = re.findall(r"^gpt2x: (\d) jobs? sent to Slurm as (\d+); Ctrl-C cancels$", result.err, re.MULTILINE)
    assert [int(count) for count, _ in sent] == [ARRAY_SIZE, 1]
    array = sent[0][1]
    wait(lambda: cluster.states(array) == {f"{array}_{index}": "COMPLETED" for index in range(ARRAY_SIZE)})
    jobs = [json.loads(file.read_text(encoding="utf-8")) for file in (launch / "slurm").glob("*/job.json")]
    assert [job["host"] for job in jobs] == [cluster.node] * (ARRAY_SIZE + 1)
    command = [sys.executable, "-m", "gpt2x", "-m", *sweep, "hydra.sweep.dir=here"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert (launch / "slurm" / "generations.csv").read_bytes() == (launch / "here" / "generations.csv").read_bytes()


def test_jobs_that_are_lost_are_recorded_and_resumed(start: Start, launch: Path, cluster: Cluster) -> None:
    sweep = launch / "study"
    command = start(*SECONDS, "seed=range(4)", *SLURM, "hydra.launcher.array_parallelism=3", "hydra.sweep.dir=study")
    os.kill(wait(lambda: jobs_in(sweep).get(0))["pid"], signal.SIGKILL)
    array = cluster.array()
    cluster.ask("scancel", f"{array}_3")  # it has not begun
    wait(lambda: jobs_in(sweep).get(1))
    cluster.ask("scancel", "--signal=USR2", f"{array}_1")  # as Slurm does when a job must give way to another one
    wait(lambda: cluster.states(array)[f"{array}_1"] == "PENDING")
    cluster.ask("scontrol", "update", f"JobId={array}_1", "StartTime=now")  # Slurm would wait for two minutes
    result = command.end()
    assert result.code == 3, result.err
    assert states(sweep) == {
        "0": ("killed", "1"),
        "1": ("done", "2"),
        "2": ("done", "1"),
        "3": ("killed", "0"),
    }
    assert "Traceback" not in result.err
    print(result.err, (sweep / "jobs.csv").read_text())
    pytest.fail()


def test_the_time_limit_and_scancel_of_jobs_that_run(start: Start, launch: Path, cluster: Cluster) -> None:
    sweep = launch / "limited"
    limit = ("hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=5")
    command = start(*MINUTES, "seed=0,1", *SLURM, *limit, "hydra.sweep.dir=limited")
    wait(lambda: len(list(sweep.glob("*/job.json"))) == 2)
    cluster.ask("scancel", f"{cluster.array()}_1")
    result = command.end()
    assert result.code == 3, result.err
    assert states(sweep) == {"0": ("killed", "1"), "1": ("killed", "1")}
    print((sweep / "jobs.csv").read_text())
    pytest.fail()


def test_ctrl_c_cancels_the_jobs(start: Start, launch: Path, cluster: Cluster) -> None:
    command = start(*SECONDS, "seed=0,1", *SLURM, "hydra.sweep.dir=interrupted")
    wait(lambda: jobs_in(launch / "interrupted"))
    command.process.send_signal(signal.SIGINT)
    result = command.end()
    assert result.code == 130, result.err
    assert "gpt2x: interrupted; cancelled the jobs" in result.err
    wait(lambda: not cluster.ask("squeue", "--noheader"))


def test_jobs_that_slurm_refuses(start: Start, launch: Path) -> None:
    line = start(*SECONDS, "seed=0,1", *SLURM, "hydra.launcher.partition=nowhere").end().error()
    assert line.startswith("gpt2x: error: Slurm refuses the jobs: ")
    assert "invalid partition" in line
    assert [path.name for path in launch.iterdir()] == ["prompts.txt"]
