"""Sweeps on a real Slurm: hydra/launcher=submitit_slurm. The jobs run on a node that has another host name."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cli.test_readme import ON_SLURM
from tests.cluster.jobs import SECONDS, Command, jobs_csv, jobs_in, running, wait, write_prompts
from tests.cluster.slurm import ARRAY_SIZE, Cluster
from tests.conftest import REPO, Cli

SLURM = ("hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=2")
MINUTES = ("task=generate", "prompts_file=prompts.txt", "decode.num_samples=20", "decode.max_new_tokens=200")
Start = Callable[..., Command]


@pytest.fixture
def start(launch: Path, cluster: Cluster) -> Iterator[Start]:
    """Starts a command, which does not outlive the test, and whose jobs do not."""
    write_prompts(launch)
    with ExitStack() as commands:
        yield lambda *args: commands.enter_context(running(launch, *args, environment=cluster.environment))
    cluster.ask("scancel", "--user=root")


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


def test_jobs_that_are_lost_are_recorded_and_resumed(start: Start, launch: Path, cluster: Cluster, gpt2x: Cli) -> None:
    sweep = launch / "runs" / "sweeps" / "study"
    command = start("sweep=study", *SECONDS, "seed=range(4)", *SLURM, "hydra.launcher.array_parallelism=3")
    wait(lambda: jobs_in(sweep).get(1))
    array = cluster.array()
    cluster.ask("scancel", f"{array}_3")  # it has not begun
    cluster.ask("scancel", "--signal=USR2", f"{array}_1")  # as Slurm does when a job must give way to another one
    os.kill(wait(lambda: jobs_in(sweep).get(0))["pid"], signal.SIGKILL)
    wait(lambda: cluster.states(array)[f"{array}_1"] == "PENDING")
    time.sleep(2)  # Slurm cannot start a job in the second in which it was put back into the queue
    cluster.ask("scontrol", "update", f"JobId={array}_1", "StartTime=now")  # Slurm would wait for two minutes
    result = command.end()
    assert result.code == 3, result.err
    assert "Traceback" not in result.err
    jobs = jobs_csv(sweep)
    assert {seed: (job["status"], job["attempts"]) for seed, job in jobs.items()} == {
        "0": ("killed", "1"),
        "1": ("done", "2"),  # Slurm has started it again
        "2": ("done", "1"),
        "3": ("killed", "0"),
    }
    log = f"runs/sweeps/study/.submitit/{array}_0/{array}_0_0_log.err"
    assert jobs["0"]["error"] == f"Slurm job {array}_0: its process was killed, or could not start: see {log} (FAILED)"
    assert jobs["3"]["error"] == f"Slurm job {array}_3: cancelled (CANCELLED by 0)"
    assert (launch / log).is_file()
    shown = " ".join(result.out.split())
    assert [job["error"] in shown for job in jobs.values()] == [True] * 4

    result = start("sweep=study", *SECONDS, "seed=range(4)", *SLURM).end()
    assert result.code == 0, result.err
    assert [job["attempts"] for job in jobs_csv(sweep).values()] == ["2", "2", "1", "1"]
    assert gpt2x("-m", "sweep=here", *SECONDS, "seed=range(4)").code == 0
    assert (sweep / "generations.csv").read_bytes() == (sweep.with_name("here") / "generations.csv").read_bytes()


def test_a_job_that_is_cancelled_before_others_have_begun(start: Start, launch: Path, cluster: Cluster) -> None:
    command = start(
        *SECONDS, "seed=range(3)", *SLURM, "hydra.launcher.array_parallelism=1", "hydra.sweep.dir=cancelled"
    )
    wait(lambda: cluster.ask("squeue", "--noheader", "--states=RUNNING"))
    array = cluster.array()
    cluster.ask("scancel", f"{array}_2")
    result = command.end()
    assert result.code == 3, result.err
    assert f"{array}_2" not in cluster.states(array)  # Slurm keeps no record of it
    jobs = jobs_csv(launch / "cancelled")
    assert [job["status"] for job in jobs.values()] == ["done", "done", "killed"]
    assert jobs["2"]["error"] == f"Slurm job {array}_2: cancelled (CANCELLED before it began)"


def test_the_time_limit_and_scancel_of_jobs_that_run(start: Start, launch: Path, cluster: Cluster) -> None:
    sweep = launch / "limited"
    limit = ("hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=5")
    command = start(*MINUTES, "seed=0,1", *SLURM, *limit, "hydra.sweep.dir=limited")
    wait(lambda: len(list(sweep.glob("*/job.json"))) == 2)
    cluster.ask("scancel", f"{cluster.array()}_1")
    result = command.end()
    assert result.code == 3, result.err
    jobs = jobs_csv(sweep)
    assert [(job["status"], job["attempts"]) for job in jobs.values()] == [("killed", "1")] * 2
    assert jobs["0"]["error"] == "reached its time limit of 1 min; set hydra.launcher.timeout_min higher"
    assert re.fullmatch(r"Slurm job \d+_1: cancelled \(CANCELLED by 0\)", jobs["1"]["error"])


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


@pytest.mark.parametrize(("page", "command"), ON_SLURM)
def test_command_of_a_page(page: str, command: str, launch: Path, cluster: Cluster) -> None:
    (launch / "prompts.txt").write_text("To be\nOr not to be\n", encoding="utf-8")
    path = f"{Path(sys.executable).parent}:{cluster.environment['PATH']}"
    environment = cluster.environment | {"PATH": path, "PYTHONPATH": str(REPO)}
    done = subprocess.run(
        ["bash", "-c", command], cwd=launch, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sent to Slurm" in done.stderr
