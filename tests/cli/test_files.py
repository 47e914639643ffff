"""Settings that name a file: what is said of files that cannot be used, and which kinds of files can."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.conftest import Cli, Refused, assert_in


@pytest.mark.parametrize(
    "arguments",
    [
        ("task=generate", 'prompts_file="~no_such_user/x.txt"'),
        ("task=train", 'task.data="~no_such_user/x.txt"'),
        ("task=generate", 'weights.path="~no_such_user/x"'),
        ("task.stages=[logits]", 'task.reference="~no_such_user/x.safetensors"'),
        ("task.stages=[logits]", 'task.save_reference="~no_such_user/x.safetensors"'),
        ("task.stages=[logits]", 'subject.target="~no_such_user/x.py:Model"'),
    ],
    ids=["prompts_file", "data", "weights", "reference", "save_reference", "subject"],
)
def test_an_unknown_home_directory_is_one_line(refused: Refused, arguments: tuple[str, ...]) -> None:
    assert_in(refused(*arguments), "~no_such_user/x")


@pytest.mark.parametrize("file", ["pipe", "/dev/zero"])
def test_weights_that_might_never_end_are_one_line(launch: Path, file: str) -> None:
    """Also for the thread that computes their checksum."""
    os.mkfifo("pipe")
    command = [sys.executable, "-m", "gpt2x", "prompt=a", "model=auto", f"weights.path={file}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (2, f"gpt2x: error: {file}: not a regular file\n")


def test_a_pipe_is_read_once(gpt2x: Cli, launch: Path) -> None:
    """`task.data=<(command)`: nothing may read the pipe before the task does, not even to identify the run."""
    text = "To be, or not to be, that is the question. " * 200
    small = ("model=nano", "model.vocab_size=280", "model.n_layer=1", "model.n_embd=32", "model.n_positions=16")
    short = ("task.steps=1", "task.batch_size=2", "task.data=pipe", "hydra.run.dir=out")
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_text(text), daemon=True)
    writer.start()
    result = gpt2x("task=train", *small, *short)
    assert (result.code, result.err) == (0, "")
