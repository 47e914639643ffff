"""A run folder has one owner, until its process ends in whatever way; the second job is refused."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpt2x.errors import UserError
from gpt2x.runs.lock import locked
from tests.conftest import Cli, assert_in, read_csv

LONG = ("task=generate", "decode.num_samples=120", "decode.max_new_tokens=40", "batch_size=4", "hydra.run.dir=out")
FAST = ("task=generate", "decode.max_new_tokens=1")


def start(launch: Path, *args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gpt2x", *args]
    return subprocess.Popen(command, cwd=launch, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_for(file: Path) -> None:
    deadline = time.time() + 120
    while not file.exists():
        assert time.time() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("attempt", range(3))
def test_two_runs_at_the_same_time_in_one_folder(gpt2x: Cli, launch: Path, attempt: int) -> None:
    """Both are killed, and one is continued: the table has each sample once."""
    processes = [start(launch, *LONG) for _ in range(2)]
    wait_for(launch / "out" / "state.json")
    time.sleep(0.3 * attempt)
    for process in processes:
        process.kill()
    ends = sorted((process.communicate()[1], process.returncode) for process in processes)
    assert ends[0] == ("", -signal.SIGKILL)
    if ends[1] != ("", -signal.SIGKILL):  # it had not come so far as to be refused
        assert_in(ends[1][0], "gpt2x: error: out: in use by process", "hydra.run.dir")
        assert ends[1][1] == 2
    assert gpt2x(*LONG).code == 0
    rows = read_csv(launch / "out" / "generations.csv")
    assert [int(row["sample"]) for row in rows] == list(range(120))
    files = ["generations.csv", "job.json", "manifest.json", "timing.csv", "weights.csv"]
    assert sorted(file.name for file in (launch / "out").iterdir()) == files


def test_the_second_job_leaves_the_owner_s_files_alone(gpt2x: Cli, launch: Path) -> None:
    assert gpt2x(*FAST, "hydra.run.dir=out").code == 0
    with locked(launch / "out" / ".lock", "hydra.run.dir"):
        before = {file.name: file.read_bytes() for file in (launch / "out").iterdir()}
        for args in (FAST, ("task=generate", "decode.top_k=0"), ("decode.max_new_tokens=1",)):
            assert_in(gpt2x(*args, "hydra.run.dir=out").error(), "out: in use by", f"process {os.getpid()} on")
        assert {file.name: file.read_bytes() for file in (launch / "out").iterdir()} == before
    assert gpt2x(*FAST, "hydra.run.dir=out").code == 0
    assert not (launch / "out" / ".lock").exists()


def test_a_sweep_leaves_a_job_to_the_process_that_runs_it_and_takes_it_over_if_it_does_not_end(
    gpt2x: Cli, launch: Path
) -> None:
    sweep = ("-m", *FAST, "hydra.sweep.dir=out", "seed=1,2")
    assert gpt2x(*sweep).code == 0
    first = launch / "out" / read_csv(launch / "out" / "jobs.csv")[0]["job"]
    (first / "job.json").unlink()
    (first / "generations.csv").unlink()
    program = f"""
import time
from pathlib import Path
from gpt2x.runs.lock import locked
with locked(Path({str(first / ".lock")!r}), "hydra.run.dir"):
    print("locked", flush=True)
    time.sleep(2)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "locked\n"
        result = gpt2x(*sweep)
        assert owner.wait() == 0
    assert result.code == 0
    assert result.err.splitlines() == [
        "gpt2x: 1 of 2 jobs are done already",
        "gpt2x: waiting for 1 job that another command runs",
    ]
    jobs = read_csv(launch / "out" / "jobs.csv")
    assert [(job["status"], job["attempts"]) for job in jobs] == [("done", "1"), ("done", "1")]


def test_a_lock_is_released_and_its_file_removed(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    for _ in range(2):
        with (
            locked(file, "hydra.run.dir"),
            pytest.raises(UserError, match="in use"),
            locked(file, "hydra.run.dir"),
        ):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_a_folder_that_was_made_anew_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    with locked(file, "hydra.run.dir"):
        file.unlink()
        file.write_text("of another process")
    assert file.read_text() == "of another process"


def test_waiting_for_a_lock(tmp_path: Path) -> None:
    """Many processes count in one file: none of them loses the count of another."""
    program = f"""
from pathlib import Path
from gpt2x.runs.lock import locked
folder = Path({str(tmp_path)!r})
for _ in range(50):
    with locked(folder / ".lock", "hydra.sweep.dir", wait=True):
        count = int((folder / "count").read_text())
        (folder / "count").write_text(str(count + 1))
"""
    (tmp_path / "count").write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "150"


@pytest.mark.parametrize("name", [".generations.csv.0a1b2c3d.tmp", ".job.json.0a1b2c3d.tmp", ".state.json.ff.tmp"])
def test_temporary_files_of_killed_runs_are_removed(gpt2x: Cli, launch: Path, name: str) -> None:
    (launch / "out").mkdir()
    for file in (name, ".mine.csv.0a1b2c3d.tmp"):
        (launch / "out" / file).write_text("half")
    assert gpt2x(*FAST, "hydra.run.dir=out").code == 0
    left = {file.name for file in (launch / "out").iterdir() if file.name.startswith(".")}
    assert left == {".mine.csv.0a1b2c3d.tmp"}  # of somebody else
