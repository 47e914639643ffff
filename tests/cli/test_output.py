"""Places that vanish or fill up while a run writes or prints: one line, exit code 2, and no file half-written."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import Cli, Result, assert_in

FAST = ("task=generate", "decode.max_new_tokens=1")
TRAIN = (
    *("task=train", "model=nano", "task.data=../text", "task.steps=100000", "task.eval_every=1", "task.batch_size=1"),
    *("model.n_layer=1", "model.n_embd=16", "model.n_head=2", "model.n_positions=16", "model.vocab_size=270"),
)
LONG = ("task=generate", "decode.num_samples=100000", "decode.max_new_tokens=20", "batch_size=4")


def shell(launch: Path, script: str, *args: str) -> Result:
    """A script of bash, in which "$@" is `python -m gpt2x ARGS`."""
    command = ["bash", "-o", "pipefail", "-c", script, "bash", sys.executable, "-m", "gpt2x", *args]
    done = subprocess.run(command, cwd=launch, capture_output=True, text=True, timeout=120, check=False)
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("args", [FAST, ("--help",), ("--version",), ("--cfg", "job")], ids=lambda args: args[0])
def test_a_full_disk_for_the_output_is_one_line(launch: Path, args: tuple[str, ...]) -> None:
    result = shell(launch, '"$@" > /dev/full', *args)
    *folder, line = result.err.splitlines()
    assert result.code == 2
    assert all(line.startswith("results in ") for line in folder)
    assert_in(line, "gpt2x: error: cannot write to standard output: No space left")
    assert len(list(launch.glob("runs/*/*/manifest.json"))) == (args == FAST)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "2>/dev/full"])
def test_a_closed_output_costs_nothing(launch: Path, closed: str) -> None:
    result = shell(launch, f'"$@" {closed}', *FAST)
    assert (result.code, result.warnings) == (0, "")
    assert len(list(launch.glob("runs/*/*/manifest.json"))) == 1
    assert shell(launch, f'"$@" {closed}', *FAST, "decode.top_k=0").code == 2


@pytest.mark.parametrize("blocks", [0, 1])
@pytest.mark.parametrize(
    "args", [FAST, ("-m", *FAST, "seed=1,2"), ("task.stages=[logits]",)], ids=["run", "-m", "validate"]
)
def test_a_limit_for_the_size_of_files(launch: Path, blocks: int, args: tuple[str, ...]) -> None:
    line = shell(launch, f'ulimit -f {blocks}; "$@" | cat', *args).error()
    assert_in(line, "File too large")
    assert [file for file in launch.rglob("*") if file.is_file()] == []


@pytest.mark.parametrize(("args", "mark"), [(TRAIN, "state.pt"), (LONG, "generations.csv")], ids=["train", "generate"])
@pytest.mark.parametrize("removed", ["run", "launch"])
def test_a_folder_that_is_removed_while_a_job_writes(
    launch: Path, args: tuple[str, ...], mark: str, removed: str
) -> None:
    (launch.parent / "text").write_text("to be, or not to be, that is the question. " * 50)
    command = [sys.executable, "-m", "gpt2x", *args, "hydra.run.dir=out"]
    process = subprocess.Popen(command, cwd=launch, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.time() + 120
        while not (launch / "out" / mark).exists():
            assert time.time() < deadline
            time.sleep(0.01)
        gone = launch / "out" if removed == "run" else launch
        gone.rename(launch.parent / "gone")  # at once, unlike rmtree
        shutil.rmtree(launch.parent / "gone")
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    line = Result(process.returncode, "", err).error()
    # The second is torch's; the third comes where the folder goes between the attempt to make it and a look at it.
    reasons = "No such file or directory", "does not exist", "File exists"
    assert any(reason in line for reason in reasons), line
    assert_in(line, "out")
    assert not (launch / "out").exists()


@pytest.mark.parametrize("name", ["validate", "benchmark"])
def test_a_folder_that_is_removed_before_the_tables(
    gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """heat_map and draw leave the writing to matplotlib, whose error names no folder of ours."""

    def draw(result: object, path: Path) -> None:
        shutil.rmtree(path.parent)
        path.write_text("a picture")

    monkeypatch.setattr(f"gpt2x.tasks.{name}.{'save_heat_map' if name == 'validate' else 'draw'}", draw)
    small = {
        "validate": ("task.stages=[layers]",),
        "benchmark": ("task.engines=[gpt2x]", "task.batch_sizes=[1]", "task.new_tokens=2", "task.rounds=1"),
    }
    line = gpt2x(f"task={name}", *small[name], "hydra.run.dir=out").error()
    assert_in(line, "out: it, or the directory of the command, was removed while the job ran")
    assert list(launch.iterdir()) == []


@pytest.mark.parametrize("args", [FAST, ("-m", *FAST, "seed=1,2"), ("--help",)], ids=lambda args: args[0])
def test_a_launch_directory_that_was_removed_before(launch: Path, args: tuple[str, ...]) -> None:
    line = shell(launch, 'mkdir x; cd x; rmdir ../x; "$@"', *args).error()
    assert_in(line, "the folder in which gpt2x was started no longer exists")
    assert list(launch.iterdir()) == []
