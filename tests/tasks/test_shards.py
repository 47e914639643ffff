"""shard.index and shard.count: the tables of all shards, one below the other, are the table of a single run."""

import io
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2x.config.shard import ShardConfig
from gpt2x.decoding import blocks
from gpt2x.paths import standard_input
from tests.conftest import REPO, Cli, Refused, assert_in, read_csv

SHORT = ("task=generate", "decode.max_new_tokens=3")
(SED,) = re.findall(r"sed -E '(.*?)'", (REPO / "runs" / "README.md").read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 8 samples, or two batches."""
    monkeypatch.setattr(blocks, "_SAMPLES", 8)


def write_prompts(file: Path, n: int = 40) -> None:
    """Records of many lengths; some have an id or another column, which no earlier shard may know."""
    drawn = random.Random(0)
    with file.open("w", encoding="utf-8") as stream:
        for place in range(n):
            record = {"prompt": " ".join(["To", "be,", "or", "not"][: drawn.randrange(1, 5)] * drawn.randrange(1, 9))}
            record |= {"id": f'"{place}",\n'} if place % 5 == 0 else {}
            record |= {"topic": "a\r\nb"} if place > n // 2 else {}
            stream.write(json.dumps(record) + "\n")


def without_added_columns(table: Path) -> bytes:
    """The joined table without `job` and `shard.index`, by the command in runs/README.md."""
    assert table.read_bytes().startswith(b'"job","shard.index",')
    return subprocess.run(["sed", "-E", SED, table], capture_output=True, check=True).stdout


@pytest.mark.parametrize(
    "settings",
    [
        ("decode.logprobs=2",),
        ("batch_size=3", "decode.num_samples=3"),
        ("batch_size=7", "dtype=bfloat16", "decode=greedy"),
        ("batch_size=4", "decode.num_beams=2", "decode.num_samples=2"),
    ],
)
@pytest.mark.parametrize("count", [3])
def test_the_joined_tables_are_those_of_a_single_run(
    gpt2x: Cli, launch: Path, settings: tuple[str, ...], count: int
) -> None:
    write_prompts(launch / "p.jsonl")
    args = (*SHORT, "prompts_file=p.jsonl", *settings)
    assert gpt2x(*args, "hydra.run.dir=one").code == 0
    shards = (f"shard.count={count}", f"shard.index=range(0,{count})")
    assert gpt2x("-m", *args, *shards, "hydra.sweep.dir=many").code == 0
    tables = {"generations.csv", *(["tokens.csv"] if "decode.logprobs=2" in settings else [])}
    for name in tables:
        assert without_added_columns(launch / "many" / name) == (launch / "one" / name).read_bytes(), name
    parts = [read_csv(each / "generations.csv") for each in (launch / "many").iterdir() if each.is_dir()]
    assert len(parts) == count
    assert min(map(len, parts)) > 0
    assert {list(part[0])[-1] for part in parts} == {"topic"}  # also where no prompt of the part has it


def test_other_batches_would_round_differently(gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why shards are whole blocks: the same prompts in other batches have other bytes, if only in the last digits."""
    write_prompts(launch / "p.jsonl")
    args = (*SHORT, "prompts_file=p.jsonl", "batch_size=7", "dtype=bfloat16", "decode=greedy")
    assert gpt2x(*args, "hydra.run.dir=one").code == 0
    monkeypatch.setattr("gpt2x.tasks.generate.shard_of", lambda n, block, shard: slice(5, n))
    assert gpt2x(*args, "hydra.run.dir=other").code == 0
    whole, other = (read_csv(launch / name / "generations.csv") for name in ("one", "other"))
    assert [row["prompt_id"] for row in other] == [row["prompt_id"] for row in whole[5:]]
    assert other != whole[5:]


def test_more_shards_than_blocks(gpt2x: Cli, launch: Path) -> None:
    write_prompts(launch / "p.jsonl", 9)
    args = (*SHORT, "prompts_file=p.jsonl")
    assert gpt2x(*args, "hydra.run.dir=one").code == 0
    result = gpt2x("-m", *args, "shard.count=4", "shard.index=range(0,4)", "hydra.sweep.dir=many")
    assert (result.code, result.err) == (0, "")
    assert result.out.count("no samples: there are more shards than blocks") == 2
    joined = without_added_columns(launch / "many" / "generations.csv")
    assert joined == (launch / "one" / "generations.csv").read_bytes()
    assert [job["status"] for job in read_csv(launch / "many" / "jobs.csv")] == ["done"] * 4


def test_a_shard_of_one_sample_is_not_streamed(gpt2x: Cli, launch: Path) -> None:
    (launch / "p.txt").write_text("Juliet\n")
    result = gpt2x(*SHORT, "prompts_file=p.txt", "shard.count=2", "shard.index=0")
    assert result.code == 0
    assert "1 samples" in result.out


def test_standard_input_is_divided_too(gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    standard_input.cache_clear()
    text = "".join(f"line {i}\n" for i in range(20))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    args = (*SHORT, "prompts_file=-", "shard.count=2", "shard.index=0,1")
    assert gpt2x("-m", *args, "hydra.sweep.dir=many").code == 0
    standard_input.cache_clear()
    rows = read_csv(launch / "many" / "generations.csv")
    assert [row["prompt_id"] for row in rows] == [str(i) for i in range(20)]
    assert [row["shard.index"] for row in rows] == ["0"] * 16 + ["1"] * 4


@pytest.mark.parametrize("index", [0, 1])
def test_every_shard_refuses_a_prompt_that_does_not_fit(refused: Refused, tmp_path: Path, index: int) -> None:
    file = tmp_path / "p.txt"
    file.write_text("".join(f"line {i}\n" for i in range(15)) + "To be " * 400 + "\n")
    line = refused(*SHORT, f"prompts_file={file}", "shard.count=2", f"shard.index={index}")
    assert_in(line, "prompt '15'", "more than the model's context", "decode.on_overflow=crop")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["shard.count=2"], ["shard.count=2", "also give shard.index, from 0 to 1"]),
        (["shard.count=2", "shard.index=2"], ["shard.index=2", "from 0 to 1"]),
        (["shard.count=2", "shard.index=-1"], ["shard.index=-1", "from 0 to 1"]),
        (["shard.index=1"], ["shard.index=1", "shard.count=1"]),
        (["shard.count=0", "shard.index=0"], ["shard.count=0", "at least 1"]),
        (["shard.count=2", "shard.index=0", "prompts_file=null"], ["shard.count=2", "add prompts_file=FILE"]),
        (["shard.count=2", "shard.index=0", "prompt_id=0"], ["shard.count=2 and prompt_id contradict"]),
        (["shard.cnt=2"], ["shard.cnt", "no such setting", "'shard.count'"]),
    ],
)
def test_shards_that_are_none(refused: Refused, tmp_path: Path, args: list[str], words: list[str]) -> None:
    (tmp_path / "p.txt").write_text("a\nb\n")
    source = [] if "prompts_file=null" in args else [f"prompts_file={tmp_path / 'p.txt'}"]
    assert_in(refused(*SHORT, *source, *args), *words)


def test_a_prompt_is_not_divided(refused: Refused) -> None:
    assert_in(refused(*SHORT, "prompt=Juliet", "shard.count=2", "shard.index=0"), "shard.count=2", "prompts_file=FILE")


@pytest.mark.parametrize("task", ["validate", "evaluate", "train", "benchmark"])
def test_other_tasks_have_no_shards(refused: Refused, task: str) -> None:
    assert_in(refused(f"task={task}", "shard.count=2"), "shard.count", "does not use it", "task=generate")


def test_a_shard_of_one_is_the_whole(gpt2x: Cli, launch: Path) -> None:
    (launch / "p.txt").write_text("one\ntwo\n")
    assert ShardConfig(0, 1).count == 1
    assert gpt2x(*SHORT, "prompts_file=p.txt", "shard.index=0", "shard.count=1", "hydra.run.dir=out").code == 0
    assert len(read_csv(launch / "out" / "generations.csv")) == 2
