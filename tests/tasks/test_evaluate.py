"""task=evaluate, from the command line to evaluation.csv."""

import json
from pathlib import Path

import pytest

import gpt2x as package
from tests.conftest import Cli, Refused, assert_in, read_csv, run_dir

TEXT = "to be, or not to be\n" * 20


def test_a_file_is_one_text(gpt2x: Cli, launch: Path, tiny_dir: Path) -> None:
    (launch / "a.txt").write_text(TEXT)
    result = gpt2x("task=evaluate", "task.data=a.txt", "task.stride=10", f"weights.path={tiny_dir}")
    assert result.code == 0
    assert_in(result.out, "perplexity", "bits per byte", "results in runs/evaluate/")
    folder = run_dir(launch, "evaluate")
    (row,) = read_csv(folder / "evaluation.csv")
    (expected,) = package.evaluate(TEXT, model=tiny_dir, stride=10).to_dict("records")
    assert float(row["loss"]) == pytest.approx(expected["loss"], rel=1e-8)
    assert [row[key] for key in ("text_id", "stride", "dtype")] == ["0", "10", "float32"]
    inputs = json.loads((folder / "job.json").read_text())["identity"]["inputs"]
    assert set(inputs) == {"task.data", "weights"}


def test_a_prompts_file_has_many_texts(gpt2x: Cli, launch: Path, tiny_dir: Path) -> None:
    (launch / "a.jsonl").write_text('{"id": "x", "prompt": "to be, or not"}\n{"prompt": "that is the question"}\n')
    assert gpt2x("task=evaluate", "prompts_file=a.jsonl", f"weights.path={tiny_dir}").code == 0
    rows = read_csv(run_dir(launch, "evaluate") / "evaluation.csv")
    texts = ["to be, or not", "that is the question"]
    assert rows[0]["text_id"] == "x"
    assert [float(row["bits_per_byte"]) for row in rows] == pytest.approx(
        package.evaluate(texts, model=tiny_dir)["bits_per_byte"].tolist(), rel=1e-8
    )


def test_it_is_swept(gpt2x: Cli, launch: Path, tiny_dir: Path) -> None:
    (launch / "a.txt").write_text(TEXT)
    args = ("task=evaluate", "task.data=a.txt", f"weights.path={tiny_dir}", "hydra.sweep.dir=sweep")
    assert gpt2x("-m", *args, "task.stride=5,50").code == 0
    rows = read_csv(launch / "sweep" / "evaluation.csv")
    assert [row["stride"] for row in rows] == ["5", "50"]
    assert float(rows[0]["loss"]) != float(rows[1]["loss"])


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], ["task.data=FILE", "prompts_file=FILE"]),
        (["task.data=a.txt", "prompts_file=b.txt"], ["task.data=FILE"]),
        (["task.data=none.txt"], ["task.data=none.txt", "No such file"]),
        (["task.data=/dev/null"], ["0 tokens"]),
        (["task.data=/dev/null", "task.stride=0"], ["task.stride=0", "at least 1"]),
        (["task.data=/dev/null", "seed=1"], ["seed", "task=evaluate does not use it"]),
    ],
)
def test_bad_input_is_refused(refused: Refused, args: list[str], words: list[str]) -> None:
    assert_in(refused("task=evaluate", *args), *words)
