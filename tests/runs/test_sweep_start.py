"""What is wrong with a sweep as a whole is said in one line, before its first job."""

import json
from pathlib import Path

import pytest

from tests.conftest import Cli, Refused, assert_in

SWEEP = ("-m", "task=generate", "decode.max_new_tokens=1", "seed=1,2")


def test_a_sweep_that_cannot_be_read(gpt2x: Cli, launch: Path) -> None:
    (launch / "out").mkdir()
    (launch / "out" / "sweep.json").write_text("nonsense")
    result = gpt2x(*SWEEP, "hydra.sweep.dir=out")
    assert_in(result.error(), "out/sweep.json", "hydra.sweep.dir")
    assert result.out == ""  # no job has run
    assert [file.name for file in (launch / "out").iterdir()] == ["sweep.json"]


def test_a_sweep_folder_that_cannot_be_made(gpt2x: Cli, launch: Path) -> None:
    (launch / "out").write_text("a file")
    assert_in(gpt2x(*SWEEP, "hydra.sweep.dir=out").error(), "out", "hydra.sweep.dir")


@pytest.mark.parametrize("flags", [("--cfg", "job", "-m"), ("-m", "--info", "config"), ("--resolve",)])
def test_flags_that_contradict_each_other(refused: Refused, flags: tuple[str, ...]) -> None:
    assert_in(refused("task=generate", *flags), flags[0] if flags[0] != "-m" else "--multirun")


def test_each_command_is_noted_before_its_jobs(gpt2x: Cli, launch: Path) -> None:
    gpt2x(*SWEEP, "decode.top_k=0", "hydra.sweep.dir=out")
    assert len(json.loads((launch / "out" / "sweep.json").read_text())["invocations"]) == 1


def test_a_job_whose_folder_holds_another_run_has_failed(gpt2x: Cli, launch: Path) -> None:
    (launch / "text.txt").write_text("To be, or not to be, that is the question. " * 200)
    small = ("model=nano", "model.vocab_size=280", "model.n_layer=1", "model.n_embd=32", "model.n_positions=16")
    train = ("-m", "task=train", *small, "task.data=text.txt", "task.steps=1", "task.batch_size=2")
    folders = ("hydra.sweep.dir=out", "hydra.sweep.subdir=${hydra:job.num}")
    assert gpt2x(*train, *folders, "seed=1").code == 0
    result = gpt2x(*train, *folders, "seed=2")
    assert result.code == 3
    assert_in(result.err, "out/0", "seed")
    job = json.loads((launch / "out" / "0" / "job.json").read_text())
    assert (job["status"], job["overrides"][-1]) == ("done", "seed=1")
    assert gpt2x(*train, *folders, "seed=1").code == 0
