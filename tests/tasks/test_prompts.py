"""Prompts from files and standard input: their texts, ids and other columns, in generations.csv and in a sweep."""

import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpt2x.paths import standard_input
from gpt2x.prompts import read_prompts
from tests.conftest import Cli, Refused, assert_in, read_csv
from tests.runs.test_resume import interrupt

SHORT = ("task=generate", "decode.max_new_tokens=2")
SHELL_TEXT = 'It\'s "quoted", a=b\n\t${x} \\ $HOME `id`\n'
Stdin = Callable[[str], None]


def text_id(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the text of standard input, as a new process would find it."""

    def give(text: str) -> None:
        standard_input.cache_clear()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    yield give
    standard_input.cache_clear()


@pytest.fixture
def rows(gpt2x: Cli, launch: Path) -> Callable[..., list[dict[str, Any]]]:
    def run(*args: str) -> list[dict[str, Any]]:
        assert gpt2x(*SHORT, *args, "hydra.run.dir=out").code == 0
        return read_csv(launch / "out" / "generations.csv")

    return run


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_a_prompt_file_is_one_prompt_without_one_trailing_newline(rows: Any, launch: Path, end: str) -> None:
    (launch / "p").write_text(SHELL_TEXT[:-1] + end, encoding="utf-8", newline="")
    (row,) = rows("prompt_file=p")
    assert row["prompt"] == SHELL_TEXT[:-1] + ("\n" if end == "\n\n" else "")
    assert row["prompt_id"] == text_id(row["prompt"])


def test_a_prompt_from_standard_input(rows: Any, stdin: Stdin) -> None:
    stdin(SHELL_TEXT)
    assert rows("prompt_file=-")[0]["prompt"] == SHELL_TEXT[:-1]


def test_prompts_from_a_pipe(launch: Path) -> None:
    command = [sys.executable, "-m", "gpt2x", *SHORT, "prompts_file=-", "hydra.run.dir=out"]
    subprocess.run(command, cwd=launch, input=b"one\r\n\n{two\n", check=True, timeout=100)
    found = read_csv(launch / "out" / "generations.csv")
    assert [(row["prompt_id"], row["prompt"]) for row in found] == [("0", "one"), ("1", "{two")]


def test_records_from_standard_input(rows: Any, stdin: Stdin) -> None:
    stdin('\n{"prompt": "one", "id": "x"}\n{"prompt": "two"}\n')
    assert [(row["prompt_id"], row["prompt"]) for row in rows("prompts_file=-")] == [("x", "one"), ("1", "two")]


def test_standard_input_serves_all_jobs_of_a_sweep(gpt2x: Cli, launch: Path, stdin: Stdin) -> None:
    stdin("one\ntwo\n")
    assert gpt2x("-m", *SHORT, "prompts_file=-", "seed=1,2", "hydra.sweep.dir=out").code == 0
    found = read_csv(launch / "out" / "generations.csv")
    assert [(row["seed"], row["prompt_id"], row["prompt"]) for row in found] == [
        *(("1", "0", "one"), ("1", "1", "two"), ("2", "0", "one"), ("2", "1", "two"))
    ]
    before = {path.name for path in (launch / "out").iterdir() if path.is_dir()}
    stdin("other\n")
    assert gpt2x("-m", *SHORT, "prompts_file=-", "seed=1,2", "hydra.sweep.dir=out").code == 0
    assert len({path.name for path in (launch / "out").iterdir() if path.is_dir()} - before) == 2


@pytest.mark.parametrize("text", ["", "\n"])
def test_empty_standard_input_is_refused(refused: Refused, stdin: Stdin, text: str) -> None:
    stdin(text)
    assert_in(refused(*SHORT, "prompts_file=-"), "prompts_file=-", "no prompt")
    assert_in(refused(*SHORT, "prompt_file=-"), "prompt_file=-", "is empty")


@pytest.mark.parametrize(
    "pair",
    [("prompt=a", "prompt_file=b"), ("prompt=a", "prompts_file=b.txt"), ("prompt_file=-", "prompts_file=-")],
)
def test_only_one_source_of_prompts(refused: Refused, pair: tuple[str, str]) -> None:
    keys = [setting.partition("=")[0] for setting in pair]
    assert_in(refused(*SHORT, *pair), f"{keys[0]} and {keys[1]} contradict")


def test_validate_takes_its_prompt_from_a_file(gpt2x: Cli, launch: Path, refused: Refused, stdin: Stdin) -> None:
    stdin(SHELL_TEXT)
    args = ("task.stages=[logits]", "prompt_file=-", "hydra.run.dir=out")
    assert gpt2x(*args).code == 0
    identity = json.loads((launch / "out" / "job.json").read_text())["identity"]
    assert identity["inputs"]["prompt_file"] == [hashlib.sha256(SHELL_TEXT.encode()).hexdigest()]
    assert "prompt_file" not in identity["settings"]


def test_an_id_is_that_of_the_text_in_every_job(gpt2x: Cli, launch: Path) -> None:
    assert gpt2x("-m", *SHORT, 'prompt="a","b"', "seed=1,2", "hydra.sweep.dir=out").code == 0
    found = read_csv(launch / "out" / "generations.csv")
    assert [(row["prompt_id"], row["prompt"]) for row in found] == [(text_id(text), text) for text in "aabb"]


def test_repeated_texts_have_ids_of_their_own() -> None:
    prompts = read_prompts(["a", "b", "a", "a"])
    assert [prompt.id for prompt in prompts] == [
        text_id("a"),
        text_id("b"),
        f"{text_id('a')}-1",
        f"{text_id('a')}-2",
    ]


def test_two_equal_ids_among_many_are_found(refused: Refused, tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text("prompt,id\n" + "".join(f"a,{min(i, 99_998)}\n" for i in range(100_000)))
    assert_in(refused(*SHORT, f"prompts_file={file}"), "two prompts have the id '99998'")


RECORDS = [
    {"prompt": "one", "topic": "a, \"b\"\n'c'", "n": 7, "list": [1, "é"]},
    {"prompt": "two", "id": "x", "flag": None},
    {"prompt": "three", "flag": True, "topic": ""},
]
EXTRA = [
    {"topic": "a, \"b\"\n'c'", "n": "7", "list": '[1, "é"]', "flag": ""},
    {"topic": "", "n": "", "list": "", "flag": ""},
    {"topic": "", "n": "", "list": "", "flag": "true"},
]


def write_records(file: Path, records: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def extra_of(rows: list[dict[str, Any]], names: Any) -> list[dict[str, Any]]:
    return [{name: row[name] for name in names} for row in rows]


def test_values_of_json_are_kept(rows: Any, launch: Path) -> None:
    write_records(launch / "p.jsonl", RECORDS)
    found = rows("prompts_file=p.jsonl")
    assert extra_of(found, EXTRA[0]) == EXTRA
    assert list(found[0])[-5:] == ["seed", "topic", "n", "list", "flag"]


def test_columns_of_a_csv_are_kept_as_they_are(rows: Any, launch: Path) -> None:
    (launch / "p.csv").write_text(',id,n,prompt, Topic\n0,x,007,one,"a, ""b"""\n1,y,1.50,two, c \n')
    found = rows("prompts_file=p.csv", "decode.num_samples=2", "decode.logprobs=1")
    assert list(found[0])[-3:] == ["seed", "n", " Topic"]  # a column without a name is an index of pandas
    assert extra_of(found[::2], ("n", " Topic")) == [{"n": "007", " Topic": 'a, "b"'}, {"n": "1.50", " Topic": " c "}]
    assert found[0]["n"] == found[1]["n"]
    assert "n" not in read_csv(launch / "out" / "tokens.csv")[0]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("p.csv", "prompt,seed\na,1\n", ["'seed'", "rename"]),
        ("p.csv", "prompt,job\na,1\n", ["'job'", "rename"]),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": "b", "completion": 1}\n', ["'completion'", "rename"]),
        ("p.csv", "prompt,x,x\na,1,2\n", ["two columns", "'x'"]),
        ("p.csv", "prompt,x\na,1\nb, c,2\n", ["entry 2", "more fields"]),
        ("p.jsonl", '{"prompt": "a", "x": "\\ud83d"}\n', ["entry 1", "UTF-8"]),
    ],
)
def test_other_columns_that_cannot_be_kept(
    refused: Refused, tmp_path: Path, name: str, content: str, words: list[str]
) -> None:
    (tmp_path / name).write_text(content)
    assert_in(refused(*SHORT, f"prompts_file={tmp_path / name}"), name, *words)


def test_a_sweep_has_the_other_columns_of_all_its_jobs(gpt2x: Cli, launch: Path) -> None:
    (launch / "a.csv").write_text("prompt,topic\none,sea\n")
    (launch / "b.csv").write_text("prompt,level,topic\ntwo,3,sky\n")
    (launch / "c.txt").write_text("three\n")
    assert gpt2x("-m", *SHORT, "prompts_file=a.csv,b.csv,c.txt", "hydra.sweep.dir=out").code == 0
    found = read_csv(launch / "out" / "generations.csv")
    assert list(found[0])[:2] == ["job", "prompts_file"]
    assert list(found[0])[-3:] == ["seed", "topic", "level"]
    assert [(row["prompt"], row["topic"], row["level"]) for row in found] == [
        *(("one", "sea", ""), ("two", "sky", "3"), ("three", "", ""))
    ]


@pytest.mark.parametrize("calls", [2, 9, 15])
def test_other_columns_of_a_run_that_is_continued(
    gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch, stdin: Stdin, calls: int
) -> None:
    records = "".join(json.dumps({"prompt": f"p{i}", "n": i, "t": 'a\r\n"'}) + "\n" for i in range(16))
    args = (*SHORT, "prompts_file=-", "batch_size=2")
    stdin(records)
    assert gpt2x(*args, "hydra.run.dir=whole").code == 0
    with monkeypatch.context() as patch:
        interrupt(patch, "to_csv", calls)
        stdin(records)
        assert gpt2x(*args, "hydra.run.dir=out").code == 130
    partial = read_csv(launch / "out" / "generations.csv")
    assert len(partial) == calls - 1
    assert all(row["prompt"] == f"p{row['n']}" for row in partial)
    stdin("another text\n")
    assert_in(gpt2x(*args, "hydra.run.dir=out").error(), "prompts_file", "other settings")
    stdin(records)
    assert gpt2x(*args, "hydra.run.dir=out").code == 0
    assert (launch / "out" / "generations.csv").read_bytes() == (launch / "whole" / "generations.csv").read_bytes()
