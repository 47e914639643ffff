"""What is wrong with a sweep as a whole is said in one line, before its first job."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Refused, assert_in
from tests.conftest import Cli

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
