"""task=generate on a terminal (a pseudo-terminal for each stream), and off it."""

import os
import pty
import re
import subprocess
import sys
import termios
import threading
import tty
from pathlib import Path
from typing import Any

import pytest

from gpt2x.decoding import generate as decoding
from gpt2x.reports import generation as report
from tests.conftest import Cli, read_csv

ARGS = ("task=generate", "decode=greedy", "hydra.run.dir=out")
BOLD, PLAIN = "\x1b[1m", "\x1b[0m"


class Terminal:
    """A terminal of 120 columns that remembers all that is written to it."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        tty.setraw(self.slave)  # or a newline would come back as two characters
        termios.tcsetwinsize(self.slave, (40, 120))
        self.seen = b""
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        try:
            while piece := os.read(self.master, 1 << 16):
                self.seen += piece
        except OSError:  # what Linux says when no process has the terminal open any more
            pass

    def close(self) -> str:
        os.close(self.slave)
        self.reader.join()
        os.close(self.master)
        return self.seen.decode()


def on_terminals(launch: Path, *args: str) -> tuple[str, str]:
    """stdout and stderr of `gpt2x ARGS` on a terminal each."""
    out, err = Terminal(), Terminal()
    # What else could tell rich that there is a terminal, or none.
    kept = {key: value for key, value in os.environ.items() if not re.search("COLOR|^TERM|^TTY|COLUMNS|LINES", key)}
    command = [sys.executable, "-m", "gpt2x", *args]
    try:
        code = subprocess.run(
            command,
            cwd=launch,
            env=kept | {"TERM": "xterm-256color"},
            stdin=subprocess.DEVNULL,
            stdout=out.slave,
            stderr=err.slave,
            timeout=120,
            check=False,
        ).returncode
    finally:
        seen = out.close(), err.close()
    assert code == 0, seen
    return seen


def test_a_single_prompt_is_bold_and_its_text_follows(launch: Path) -> None:
    args = ("decode.max_new_tokens=30", 'prompt="[b]Now, :smile:"')
    out, err = on_terminals(launch, *ARGS, *args)
    (row,) = read_csv(launch / "out" / "generations.csv")
    assert out == f"{BOLD}{row['prompt']}{PLAIN}{row['completion']}\n"
    assert err == ""


def test_many_prompts_give_a_table_and_a_bar(launch: Path) -> None:
    (launch / "p.txt").write_text("".join(f"[b]Prompt {i}\n" for i in range(25)))
    out, err = on_terminals(launch, *ARGS, "decode.max_new_tokens=8", "prompts_file=p.txt")
    rows = read_csv(launch / "out" / "generations.csv")
    assert len(rows) == 25
    table, _, last = out.rstrip("\n").rpartition("\n")
    assert re.fullmatch(r"25 samples in out/generations.csv; 200 new tokens in \S+ s, \S+ tokens per second", last)
    for heading in ("prompt", "sample", "text", "tokens", "ended by", "logprob"):
        assert heading in table
    assert [i for i in range(25) if f"{BOLD}[b]Prompt {i}{PLAIN}" in table] == list(range(20))
    assert "and 5 more" in table
    assert re.search(r"\d+/25 samples", err)
    assert "tokens/s" in err
    assert "\x1b[?25h" in err  # the cursor is shown again


def test_off_a_terminal_there_is_one_line(gpt2x_process: Cli, launch: Path) -> None:
    (launch / "p.txt").write_text("one\ntwo\n")
    result = gpt2x_process(*ARGS, "decode.max_new_tokens=4", "prompts_file=p.txt", TERM="xterm-256color")
    assert (result.code, result.err) == (0, "")
    assert re.fullmatch(r"2 samples in out/generations.csv; 8 new tokens in \S+ s, \S+ tokens per second\n", result.out)


@pytest.mark.parametrize("stop", [(), ("decode.stop='no such text'",)], ids=["", "stop"])
def test_text_comes_while_it_is_made(gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch, stop: Any) -> None:
    events: list[str | None] = []  # a text that is written, or None for a pass of the model

    def write(text: str, style: Any = None, original: Any = report._write) -> None:
        events.append(text)
        original(text, style)

    def decode(*args: Any, original: Any = decoding.decode_one_token) -> Any:
        events.append(None)
        return original(*args)

    monkeypatch.setattr(report, "_write", write)
    monkeypatch.setattr(decoding, "decode_one_token", decode)
    result = gpt2x(*ARGS, "prompt=Now", "decode.max_new_tokens=30", *stop)
    assert result.out == "".join(event or "" for event in events)
    assert events[0] == "Now"
    after = [events[i + 1] for i, event in enumerate(events[:-1]) if event is None]
    assert len(after) == 29
    assert None not in after  # each token's text, if any, is out before the next
    assert sum(bool(text) for text in after) > 20
