"""task=generate in the folder of an unfinished run: what differs from that run is refused, and changes nothing."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from gpt2x.runs.journal import STATE
from tests.conftest import Cli
from tests.runs.test_resume import Run, arguments, interrupt, run, runs, stopped, tables, whole

__all__ = ["run", "runs", "stopped", "whole"]


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"decode.max_new_tokens": 7},
        {"decode.logprobs": 3},
        {"decode.logprobs": "null"},
        {"decode.stop": "x"},
        {"decode.lookup": "true"},
        {"dtype": "float64"},
        {"decode": "greedy", "decode.num_samples": 1},
    ],
    ids=str,
)
def test_other_settings_are_refused(run: Run, stopped: Path, other: dict[str, Any]) -> None:
    before = {file.name: file.read_bytes() for file in stopped.iterdir()}
    line = run(**other).error()
    assert "out: begun with other settings (" in line
    assert "give another hydra.run.dir" in line
    assert all(key in line for key in other if other[key] not in ("null", 1) or key == "seed"), line
    assert {file.name: file.read_bytes() for file in stopped.iterdir()} == before


def test_other_prompts_are_refused(gpt2x: Cli, stopped: Path, tiny_dir: Path) -> None:
    before = tables(stopped)
    assert "other settings" in gpt2x(*arguments(tiny_dir, 23)).error()
    args = arguments(tiny_dir, 24)
    file = Path("p.jsonl")
    file.write_text(file.read_text().replace("p3", "p03"))
    assert "other settings" in gpt2x(*args).error()
    assert tables(stopped) == before


def test_other_weights_are_refused(gpt2x: Cli, launch: Path, tiny_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = launch / "w"
    shutil.copytree(tiny_dir, weights)
    with monkeypatch.context() as patch:
        interrupt(patch, "to_csv", 20)
        assert gpt2x(*arguments(weights, 24)).code == 130
    before = tables(launch / "out")
    whole = (weights / "model.safetensors").read_bytes()
    (weights / "model.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "other settings (weights)" in gpt2x(*arguments(weights, 24)).error()
    assert tables(launch / "out") == before
    moved = launch / "moved"
    shutil.move(weights, moved)
    (moved / "model.safetensors").write_bytes(whole)
    os.utime(moved / "model.safetensors", (1, 1))
    assert gpt2x(*arguments(moved, 24)).code == 0  # neither the place nor the time of a file counts


def test_another_task_leaves_an_unfinished_run_alone(
    run: Run, gpt2x: Cli, stopped: Path, whole: dict[str, bytes]
) -> None:
    before = {file.name: file.read_bytes() for file in stopped.iterdir()}
    assert "unfinished task=generate" in gpt2x("task=validate", "hydra.run.dir=out").error()
    assert {file.name: file.read_bytes() for file in stopped.iterdir()} == before
    assert run().code == 0
    assert tables(stopped) == whole


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"{}", b"\xff\xfe", b'{"settings": {'])
def test_an_unreadable_state_is_one_line(run: Run, stopped: Path, content: bytes) -> None:
    (stopped / STATE).write_bytes(content)
    before = {file.name: file.read_bytes() for file in stopped.iterdir()}
    line = run().error()
    assert f"out/{STATE}" in line
    assert "hydra.run.dir" in line
    after = {file.name: file.read_bytes() for file in stopped.iterdir()}
    assert json.loads(after.pop("job.json"))["status"] == "failed"
    before.pop("job.json")
    assert after == before
