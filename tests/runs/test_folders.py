"""A run in the folder of a sweep, a run that is interrupted, and a folder whose name is too long."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import Cli, assert_in

FAST = ("task=generate", "prompt=x", "decode.max_new_tokens=1")


def test_a_run_does_not_replace_the_tables_of_a_sweep(gpt2x: Cli, launch: Path) -> None:
    assert gpt2x("-m", *FAST, "seed=0,1", "hydra.sweep.dir=two").code == 0
    before = {file: file.read_bytes() for file in (launch / "two").iterdir() if file.is_file()}
    assert_in(gpt2x(*FAST, "hydra.run.dir=two").error(), "two: holds a sweep; give another hydra.run.dir")
    assert {file: file.read_bytes() for file in (launch / "two").iterdir() if file.is_file()} == before


def test_an_interrupted_run_says_how_it_continues(launch: Path) -> None:
    (launch / "prompts.txt").write_text("To be\n" * 2000)
    args = ("task=generate", "prompts_file=prompts.txt", "batch_size=8", "hydra.run.dir=out")
    process = subprocess.Popen(
        [sys.executable, "-m", "gpt2x", *args],
        cwd=launch,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.time() + 120
    while not (launch / "out" / "state.json").exists():
        assert time.time() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (
        130,
        "gpt2x: interrupted; the same command continues in hydra.run.dir=out\n",
    )


def test_a_name_that_is_too_long_is_one_line(gpt2x_process: Cli, launch: Path) -> None:
    assert_in(gpt2x_process(*FAST, f"hydra.run.dir={'a' * 300}").error(), "File name too long")
