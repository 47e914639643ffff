"""task=generate that is killed: the same command goes on from the run folder, and ends in the same bytes."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from gpt2x.cli.main import main
from gpt2x.runs import journal
from gpt2x.runs.journal import STATE, Journal
from tests.conftest import Cli, Result, interrupt_at, read_csv

TABLES = ("generations.csv", "tokens.csv")
PROMPT = 'say "{i}", he\nsaid\r\n{rest}'  # all that a CSV must quote
Run = Callable[..., Result]
SAYS = "gpt2x: interrupted; the same command continues in hydra.run.dir=out\n"


def write_prompts(file: Path, n: int) -> list[str]:
    """A prompts_file of ragged prompts, neither sorted by length nor all different."""
    prompts = [PROMPT.format(i=i * 7 % 10, rest="to be, or not " * (i * 5 % 7 % 3)) for i in range(n)]
    lines = (json.dumps({"id": f"p{i}", "prompt": prompt}) for i, prompt in enumerate(prompts))
    file.write_text("\n".join(lines), encoding="utf-8")
    return prompts


def arguments(weights_path: Path, n_prompts: int, **settings: Any) -> list[str]:
    """Two samples a prompt, their tokens too; batches of 8 and so parts of 16 samples."""
    write_prompts(Path.cwd() / "p.jsonl", n_prompts)
    chosen = {"prompts_file": "p.jsonl", "weights.path": weights_path, "batch_size": 8, "decode.num_samples": 2}
    chosen |= {"decode.max_new_tokens": 6, "decode.logprobs": 2, "hydra.run.dir": "out"}
    return ["task=generate", *(f"{key}={value}" for key, value in (chosen | settings).items())]


@pytest.fixture
def run(gpt2x: Cli, launch: Path, tiny_dir: Path) -> Run:
    """`gpt2x task=generate` on 24 prompts in launch/out."""
    return lambda **settings: gpt2x(*arguments(tiny_dir, 24, **settings))


def tables(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in TABLES}


def interrupt(monkeypatch: pytest.MonkeyPatch, function: str, call: int) -> None:
    """Ctrl-C at the n-th call of a function that the journal writes with, before it has written."""
    interrupt_at(journal, function, call, monkeypatch)


@pytest.fixture(scope="module")
def runs(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs: whole/, and stopped/ after 40 of 48 samples, which are two parts of 16 and half of the third."""
    folder = tmp_path_factory.mktemp("runs")
    for name, code in (("whole", 0), ("stopped", 130)):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(sys, "argv", ["gpt2x", *arguments(tiny_dir, 24, **{"hydra.run.dir": name})])
            if name == "stopped":
                interrupt(patch, "to_csv", 2 * 40 + 1)
            assert main() == code
    assert len(read_csv(folder / "stopped" / "generations.csv")) == 40
    return folder


@pytest.fixture
def whole(runs: Path) -> dict[str, bytes]:
    """The tables of a run that nobody stopped."""
    return tables(runs / "whole")


@pytest.fixture
def stopped(runs: Path, launch: Path) -> Path:
    """The folder that a stopped run left."""
    return shutil.copytree(runs / "stopped", launch / "out")


def test_rows_stand_in_the_order_of_the_prompts(runs: Path) -> None:
    rows = read_csv(runs / "whole" / "generations.csv")
    prompts = write_prompts(runs / "p.jsonl", 24)
    assert [(row["prompt_id"], row["sample"]) for row in rows] == [(f"p{i}", s) for i in range(24) for s in "01"]
    assert [row["prompt"] for row in rows] == [prompt for prompt in prompts for _ in range(2)]
    assert len({row["n_prompt_tokens"] for row in rows}) > 2
    lengths = [int(row["n_prompt_tokens"]) for row in rows]
    assert lengths != sorted(lengths)  # the order of the work is another one
    steps = [(row["prompt_id"], row["sample"], row["step"]) for row in read_csv(runs / "whole" / "tokens.csv")]
    expected = [(row["prompt_id"], row["sample"], str(i)) for row in rows for i in range(int(row["n_new_tokens"]))]
    assert list(dict.fromkeys(steps)) == expected
    files = sorted(file.name for file in (runs / "whole").iterdir())
    assert files == ["generations.csv", "job.json", "manifest.json", "timing.csv", "tokens.csv", "weights.csv"]


@pytest.mark.parametrize(
    ("function", "call"),
    [
        *(("to_csv", call) for call in (2, 3, 4, 33, 60, 65, 96)),  # after tokens.csv's rows, or those of both
        *(("write_rows", call) for call in (1, 2, 3, 4)),  # the empty tables; the final ones
        ("write_text", 1),
    ],
)
def test_stopped_anywhere(
    run: Run, runs: Path, launch: Path, monkeypatch: pytest.MonkeyPatch, function: str, call: int
) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, function, call)
        result = run()
    assert (result.code, result.out, result.err) == (130, "", SAYS if (launch / "out" / STATE).exists() else "")
    before_state = (("write_rows", 1), ("write_rows", 2), ("write_text", 1))
    assert (launch / "out" / STATE).exists() == ((function, call) not in before_state)
    assert run().code == 0
    assert tables(launch / "out") == tables(runs / "whole")
    assert {file.name for file in (launch / "out").iterdir()} == {file.name for file in (runs / "whole").iterdir()}


def test_what_is_done_is_not_done_again(
    run: Run, stopped: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpt2x.decoding import run as decoding

    asked: list[int] = []

    def counted(model: Any, requests: list[Any], *args: Any, original: Any = decoding.generate) -> Iterator[Any]:
        asked.append(len(requests))
        return original(model, requests, *args)

    monkeypatch.setattr(decoding, "generate", counted)
    assert run().code == 0
    assert asked == [16]
    assert tables(stopped) == whole


def test_stopped_again_and_again(
    run: Run, launch: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for call in (40, 3, 50, 20):
        with monkeypatch.context() as patch:
            interrupt(patch, "to_csv", call)
            assert run().code == 130
    assert run().code == 0
    assert tables(launch / "out") == whole


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.31, 0.5, 0.77, 0.98, 0.9999])
def test_a_torn_table_costs_no_more_than_its_end(
    run: Run, stopped: Path, whole: dict[str, bytes], name: str, share: float
) -> None:
    size = (stopped / name).stat().st_size
    os.truncate(stopped / name, int(share * size))
    assert run().code == 0
    assert tables(stopped) == whole


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_is_gone_is_made_again(run: Run, stopped: Path, whole: dict[str, bytes], name: str) -> None:
    (stopped / name).unlink()
    assert run().code == 0
    assert tables(stopped) == whole


def test_a_step_that_lost_its_last_row_is_made_again(run: Run, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Greedy, so that what is lost, of the last sample of a part, is an alternative and not the token itself."""
    greedy = {"decode": "greedy", "decode.num_samples": 1}
    assert run(**greedy, **{"hydra.run.dir": "other"}).code == 0
    with monkeypatch.context() as patch:
        interrupt(patch, "to_csv", 2 * 16 + 1)
        assert run(**greedy).code == 130
    table = launch / "out" / "tokens.csv"
    text = table.read_bytes().removesuffix(b"\r\n")
    table.write_bytes(text[: text.rindex(b"\r\n") + 2])
    assert b",True,1\r\n" in table.read_bytes()[-9:]
    assert run(**greedy).code == 0
    assert tables(launch / "out") == tables(launch / "other")


def test_rows_are_whole_and_on_disk_one_by_one(run: Run, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def look(self: Journal, rows: dict[str, list[Any]], original: Any = Journal.append) -> None:
        original(self, rows)
        texts = [(launch / "out" / name).read_bytes().decode() for name in TABLES]
        assert all(text.endswith("\r\n") for text in texts)
        generations, tokens = (list(csv.DictReader(io.StringIO(text, newline=""), strict=True)) for text in texts)
        seen.append(len(generations))
        assert sum(row["chosen"] == "True" for row in tokens) == sum(int(row["n_new_tokens"]) for row in generations)

    monkeypatch.setattr(Journal, "append", look)
    assert run().code == 0
    assert seen == list(range(1, 49))


@pytest.mark.parametrize("batch_size", [1, 4, "auto"])
def test_another_batch_size_goes_on(run: Run, stopped: Path, whole: dict[str, bytes], batch_size: Any) -> None:
    """The same texts; what was done stays, and the rest is rounded as in batches of the new size."""
    done = pd.read_csv(stopped / "generations.csv").head(32)
    assert run(batch_size=batch_size).code == 0
    rows, expected = pd.read_csv(stopped / "generations.csv"), pd.read_csv(io.BytesIO(whole["generations.csv"]))
    pd.testing.assert_frame_equal(rows.drop(columns="logprob"), expected.drop(columns="logprob"))
    assert rows["logprob"].tolist() == pytest.approx(expected["logprob"].tolist(), rel=1e-4)
    assert set(done["logprob"]) <= set(rows["logprob"])


def test_no_table_of_another_run_stays(run: Run, launch: Path) -> None:
    assert run().code == 0
    assert (launch / "out" / "tokens.csv").exists()
    assert run(**{"decode.logprobs": "null"}).code == 0
    assert not (launch / "out" / "tokens.csv").exists()


def test_a_finished_folder_is_begun_anew(run: Run, launch: Path, whole: dict[str, bytes]) -> None:
    assert run(seed=1).code == 0
    assert tables(launch / "out") != whole
    assert run().code == 0
    assert tables(launch / "out") == whole


def test_no_tokens_asked_for_none_written(run: Run, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no = {"decode.logprobs": "null"}
    assert run(**no, **{"hydra.run.dir": "other"}).code == 0
    with monkeypatch.context() as patch:
        interrupt(patch, "to_csv", 30)
        assert run(**no).code == 130
    assert run(**no).code == 0
    folders = [launch / name for name in ("out", "other")]
    assert folders[0].joinpath(TABLES[0]).read_bytes() == folders[1].joinpath(TABLES[0]).read_bytes()
    assert not any(folder.joinpath(TABLES[1]).exists() for folder in folders)


def test_beams_go_on_too(run: Run, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The samples of a prompt are its beams: a part never ends between them."""
    beams = {"decode.num_beams": 3, "decode.num_samples": 3, "decode.logprobs": "null", "batch_size": 4}
    assert run(**beams, **{"hydra.run.dir": "other"}).code == 0
    for call in (5, 29):
        with monkeypatch.context() as patch:
            interrupt(patch, "to_csv", call)
            assert run(**beams).code == 130
    assert run(**beams).code == 0
    assert (launch / "out" / TABLES[0]).read_bytes() == (launch / "other" / TABLES[0]).read_bytes()


def test_a_sweep_goes_on(gpt2x: Cli, launch: Path, tiny_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = ["-m", *(arg for arg in arguments(tiny_dir, 24, seed="1,2") if arg != "hydra.run.dir=out")]
    assert gpt2x(*args, "hydra.sweep.dir=one").code == 0
    with monkeypatch.context() as patch:
        interrupt(patch, "to_csv", 150)  # in the second job
        assert gpt2x(*args, "hydra.sweep.dir=two").code == 130
    assert [row["status"] for row in read_csv(launch / "two" / "jobs.csv")] == ["done", "interrupted"]
    assert gpt2x(*args, "hydra.sweep.dir=two").code == 0
    assert tables(launch / "one") == tables(launch / "two")
    assert len(read_csv(launch / "two" / "generations.csv")) == 2 * 48
    assert list((launch / "two").rglob(STATE)) == []


def wait_for_rows(file: Path, rows: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None and not (file.is_file() and file.read_bytes().count(b'"refuse"') >= rows):
        time.sleep(0.002)


def test_killed(gpt2x: Cli, launch: Path, tiny_dir: Path) -> None:
    """In earnest: by SIGKILL twice and by Ctrl-C, in processes of their own."""
    args = arguments(tiny_dir, 120, **{"decode.max_new_tokens": 30, "batch_size": 4})
    assert gpt2x(*args, "hydra.run.dir=whole").code == 0
    out = launch / "out"
    for rows, how in ((3, signal.SIGKILL), (100, signal.SIGINT), (60, signal.SIGKILL)):
        process = subprocess.Popen([sys.executable, "-m", "gpt2x", *args], cwd=launch, stderr=subprocess.PIPE)
        wait_for_rows(out / "generations.csv", rows, process)
        process.send_signal(how)
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == ((130, SAYS.encode()) if how == signal.SIGINT else (-how, b""))
        assert (out / STATE).is_file()
    assert gpt2x(*args).code == 0
    assert tables(out) == tables(launch / "whole")
    assert len(read_csv(out / "generations.csv")) == 240
