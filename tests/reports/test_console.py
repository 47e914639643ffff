"""task=generate on a terminal (a pseudo-terminal for each stream), and off it."""

import io
import json
import os
import pty
import re
import subprocess
import sys
import termios
import threading
import tty
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.panel import Panel
from rich.segment import Segment, Segments
from rich.table import Column, Table
from rich.text import Text

from gpt2x.decoding import generate as decoding
from gpt2x.reports import console
from gpt2x.reports import generation as report
from gpt2x.visible import visible
from tests.conftest import Cli, Refused, assert_in, read_csv
from tests.tasks.test_generate import hydra_quote

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
    assert err == "gpt2x: 52 tensors: 16 transposed, 52 cast, lm_head tied\nresults in out\n"


def test_the_numbers_that_a_dtype_is_computed_in_are_said_once(gpt2x_process: Cli, launch: Path) -> None:
    (launch / "p.txt").write_text("a\nb\n")
    args = ("dtype=bfloat16", "prompts_file=p.txt", "batch_size=1", "decode.max_new_tokens=1")  # two batches
    _, err = on_terminals(launch, *ARGS, *args)
    assert err.count("gpt2x: decode steps: weights and activations in bfloat16\n") == 1
    assert gpt2x_process(*ARGS, *args, "hydra.run.dir=off").err == ""


def test_many_prompts_give_a_table_and_a_bar(launch: Path) -> None:
    (launch / "p.txt").write_text("".join(f"[b]Prompt {i}\n" for i in range(25)))
    out, err = on_terminals(launch, *ARGS, "decode.max_new_tokens=8", "prompts_file=p.txt")
    rows = read_csv(launch / "out" / "generations.csv")
    assert len(rows) == 25
    *lines, more, count, last = out.splitlines()
    table = "\n".join(lines)
    assert more == "and 5 more"
    assert re.fullmatch(r"25 samples: 200 new tokens in \S+ s, \S+ tokens per second", count)
    assert last == "results in out"
    for heading in ("prompt", "sample", "text", "tokens", "ended by", "logprob"):
        assert heading in table
    assert [i for i in range(25) if f"{BOLD}[b]Prompt {i}{PLAIN}" in table] == list(range(20))
    assert re.search(r"\d+/25 samples", err)
    assert "tokens/s" in err
    assert "\x1b[?25h" in err  # the cursor is shown again


def test_off_a_terminal_there_is_a_plain_table(gpt2x_process: Cli, launch: Path) -> None:
    lines = [json.dumps({"prompt": f"long prompt {i} " * 9, "id": f"a very long id {i}"}) for i in range(13)]
    (launch / "p.jsonl").write_text("\n".join(lines))
    args = ("decode.max_new_tokens=40", "decode.num_samples=2", "prompts_file=p.jsonl")
    result = gpt2x_process("task=generate", "hydra.run.dir=out", *args, TERM="xterm-256color")
    assert (result.code, result.err) == (0, "")
    assert "\x1b" not in result.out
    head, *rows, more, count, last = result.out.splitlines()
    assert head.split() == ["id", "sample", "prompt", "completion"]
    assert len(rows) == 20
    found = read_csv(launch / "out" / "generations.csv")
    for line, row in zip(rows, found, strict=False):
        assert len(line) == 80
        text = visible(row["completion"]).replace("\n", "⏎ ")
        assert line.startswith(f"a very long…  {row['sample']}       long prompt …  ")
        assert line.split("…  ")[-1].startswith(text[:20])
    assert more == "and 6 more"
    assert re.fullmatch(r"26 samples: \S+ new tokens in \S+ s, \S+ tokens per second", count)
    assert last == "results in out"


HOSTILE = "a\x1b]0;title\x07\x1b[31m\b\r\x9b1m\u202eb\x7f"
SAFE = "a␛]0;title␇␛[31m␈␍\\x9b1m\\u202eb␡"


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_visible_text_has_no_control_characters(text: str) -> None:
    shown = visible(text)
    assert [c for c in shown if unicodedata.category(c) == "Cc" and c not in "\t\n"] == []
    assert [c for c in shown if unicodedata.bidirectional(c) in ("LRE", "RLE", "LRO", "RLO", "LRI", "RLI", "FSI")] == []
    assert visible(shown) == shown
    assert "".join(map(visible, text)) == shown
    assert visible(text) == text or any(visible(c) != c for c in text)


CONTROL = st.text(st.sampled_from([*map(chr, range(0xA0)), "\u202e", "\u2066", "é", "家"]), min_size=1)


@given(CONTROL)
def test_nothing_that_is_printed_controls_the_terminal(text: str) -> None:
    stream = io.StringIO()
    printer = console.Console()
    printer.file = stream
    table = Table(Column(text), title=text, caption=text)
    table.add_row(text)
    table.add_row(console.as_text(text))
    for each in (text, Text(text), Segments([Segment(text)]), table, Panel(text, title=text)):
        printer.print(each)
    assert [c for c in stream.getvalue() if unicodedata.category(c) == "Cc" and c not in "\t\n"] == []
    assert not {"\u202e", "\u2066"} & set(stream.getvalue())


@pytest.mark.parametrize("on_terminal", [False, True])
@pytest.mark.parametrize("n_samples", [1, 2])
def test_a_prompt_cannot_control_the_terminal(
    gpt2x_process: Cli, launch: Path, on_terminal: bool, n_samples: int
) -> None:
    (launch / "p").write_text(HOSTILE, encoding="utf-8", newline="")
    args = ("task=generate", "prompt_file=p", f"decode.num_samples={n_samples}", "decode.max_new_tokens=1")
    args = (*args, 'hydra.run.dir="o\x1bx"')
    seen = on_terminals(launch, *args) if on_terminal else (lambda done: (done.out, done.err))(gpt2x_process(*args))
    assert SAFE[:8] in seen[0]
    assert "results in o␛x\n" in "".join(seen)
    # Colours, and showing and hiding the cursor, are rich's own.
    rest = re.sub(r"\x1b\[([0-9;]*m|\?25[hl]|[0-9]*[AK]|2K)|\r", "", "".join(seen)) if on_terminal else "".join(seen)
    assert [c for c in rest if unicodedata.category(c) == "Cc" and c not in "\t\n"] == []
    assert read_csv(launch / "o\x1bx" / "generations.csv")[0]["prompt"] == HOSTILE


def test_validate_cannot_control_the_terminal(gpt2x: Cli, launch: Path) -> None:
    (launch / "p").write_text(HOSTILE, encoding="utf-8", newline="")
    args = ("prompt_file=p", f"task.gen_prompt={hydra_quote(HOSTILE)}", "task.stages=[logits,generation]")
    result = gpt2x(*args, "decode.max_new_tokens=2", "hydra.run.dir=out")
    assert result.code == 0
    assert [c for c in result.out + result.err if unicodedata.category(c) == "Cc" and c not in "\t\n"] == []


def test_errors_cannot_control_the_terminal(refused: Refused) -> None:
    line = refused("task=generate", 'prompts_file="a\x1b[31m\x9b\u202e.txt"')
    assert_in(line, "a␛[31m\\x9b\\u202e.txt", "No such file")


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
