"""Kills a sweep again and again, and checks that it ends as if nothing had happened.

    python tests/kill_sweep.py [JOBS] [KILLS] [OVERRIDE ...]

A sweep of short jobs is started, and its process tree is killed at a random moment; this is repeated, and then the
sweep is run to its end. Its table must have the same bytes as that of a sweep that nobody disturbed, no job that was
done may have run again, and none may be missing. The overrides, such as hydra/launcher=joblib, are for the sweep that
is killed. pytest does not collect this file; tests/runs/test_killed_sweep.py runs a small form of it.
"""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

_SETTINGS = ("task=generate", "prompt=Now", "decode.max_new_tokens=100", "decode.num_samples=2")
_SECONDS_TO_START = 4.0
_SECONDS_OF_WORK = 1.0
_TABLE = "generations.csv"


@dataclass
class Report:
    """What has happened."""

    jobs: int
    kills: int = 0
    of_running_jobs: int = 0
    """Kills after which a job was left that had been started and had not ended."""
    before_any_job: int = 0
    """Kills after which no job had been done that was not done before."""
    done_after: list[int] = field(default_factory=list)
    """How many jobs were done after each kill."""
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.jobs} jobs, {self.kills} kills in {self.seconds:.0f} s: {self.of_running_jobs} left an unfinished"
            f" job, {self.before_any_job} came before a new job was done; jobs done after each kill: {self.done_after}"
        )


def kill_sweep(launch: Path, jobs: int, kills: int, chance: random.Random, overrides: tuple[str, ...] = ()) -> Report:
    """Does what the module describes, in an empty folder. Raises AssertionError if the sweep does not end well."""
    start = time.time()
    settings = (*_SETTINGS, f"seed=range(0,{jobs})")
    assert _start(launch, "sweep=whole", *settings).wait() == 0
    report = Report(jobs)
    root = launch / "runs" / "sweeps" / "killed"
    done: dict[str, tuple[int, float]] = {}
    while report.kills < kills:
        process = _start(launch, "sweep=killed", *settings, *overrides)
        _wait_for_a_moment(process, root, len(done), chance)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        report.kills += 1
        before, (done, running) = done, _jobs(root)
        assert before.items() <= done.items(), "a job that was done has run again"
        report.of_running_jobs += running > 0
        report.before_any_job += done == before
        report.done_after.append(len(done))
    assert _start(launch, "sweep=killed", *settings, *overrides).wait() == 0
    last, running = _jobs(root)
    assert done.items() <= last.items(), "a job that was done has run again"
    assert (len(last), running) == (jobs, 0), f"{len(last)} of {jobs} jobs are done"
    assert (root / _TABLE).read_bytes() == (launch / "runs" / "sweeps" / "whole" / _TABLE).read_bytes(), "other bytes"
    with (root / "jobs.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["status"] for row in rows] == ["done"] * jobs
    report.seconds = time.time() - start
    return report


def _start(launch: Path, *args: str) -> subprocess.Popen[bytes]:
    """The command, as the leader of a group of processes."""
    command = [sys.executable, "-m", "gpt2x", *args]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=launch, start_new_session=True, stdout=quiet, stderr=quiet)


def _wait_for_a_moment(process: subprocess.Popen[bytes], root: Path, n_done: int, chance: random.Random) -> None:
    """Waits for a random moment: half of them while the command starts, and half after it has done a job."""
    if chance.random() < 0.5:
        time.sleep(chance.uniform(0, _SECONDS_TO_START))
        return
    while process.poll() is None and len(_jobs(root)[0]) <= n_done:
        time.sleep(0.02)
    time.sleep(chance.uniform(0, _SECONDS_OF_WORK))


def _jobs(root: Path) -> tuple[dict[str, tuple[int, float]], int]:
    """Folder of each job that is done -> its attempt and the time of its start; and how many have not ended."""
    done, running = {}, 0
    for file in root.glob("*/job.json"):
        job = json.loads(file.read_text(encoding="utf-8"))
        if job["status"] == "done":
            done[file.parent.name] = (job["attempt"], job["started"])
        running += job["status"] == "running"
    return done, running


if __name__ == "__main__":
    n_jobs, n_kills = (int(each) for each in (sys.argv[1:3] + ["200", "100"][len(sys.argv[1:3]) :]))
    with tempfile.TemporaryDirectory() as folder:
        print(kill_sweep(Path(folder), n_jobs, n_kills, random.Random(), tuple(sys.argv[3:])))
