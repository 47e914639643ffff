"""Commands in processes of their own, and what tests look at while their jobs run elsewhere."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import REPO, Result, read_csv

SECONDS = ("task=generate", "prompts_file=prompts.txt", "batch_size=4", "decode.max_new_tokens=30")
"""A job of some seconds, which notes each finished sample, so that it can be continued."""


def write_prompts(launch: Path) -> None:
    """The prompts of SECONDS."""
    (launch / "prompts.txt").write_text("".join(f"The {number}th night\n" for number in range(40)), encoding="utf-8")


class Command:
    """`gpt2x -m ...` in a process of its own, in the folder `launch`."""

    def __init__(self, launch: Path, args: tuple[str, ...], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gpt2x", "-m", *args],
            cwd=launch,
            env=environment | {"PYTHONPATH": str(REPO)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self) -> Result:
        """Waits for the end of the command."""
        out, err = self.process.communicate(timeout=240)
        return Result(self.process.returncode, out, err)


@contextmanager
def running(launch: Path, *args: str, environment: dict[str, str]) -> Iterator[Command]:
    """A command that has ended when the context ends, if need be by force."""
    command = Command(launch, args, environment)
    try:
        yield command
    finally:
        if command.process.poll() is None:
            command.process.kill()
            command.process.communicate()


def wait(found: Callable[[], Any], seconds: float = 240) -> Any:
    """Waits until `found` returns something, and returns that."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)
    return value


def jobs_in(sweep: Path) -> dict[int, dict[str, Any]]:
    """Seed -> the content of job.json of those jobs that have begun to write samples."""
    found = {}
    for file in sweep.glob("*/job.json"):
        job = json.loads(file.read_text(encoding="utf-8"))
        if (file.parent / "state.json").exists() or job["status"] == "done":
            found[job["chosen"]["seed"]] = job
    return found


def jobs_csv(sweep: Path) -> dict[str, dict[str, str]]:
    """Seed -> row of jobs.csv."""
    return {row["overrides"].partition("seed=")[2]: row for row in read_csv(sweep / "jobs.csv")}
