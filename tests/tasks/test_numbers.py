"""The numbers of each task in job.json, which searches and trackers take, against the tables of the same run."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gpt2x.tokenizer import load_tokenizer
from tests.conftest import NANO, Cli, read_csv, run_dir


def job_of(launch: Path, task: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run_dir(launch, task) / "job.json").read_text())
    return content


def test_generate(gpt2x: Cli, launch: Path) -> None:
    options = ("decode.num_samples=4", "decode.temperature=0.3", "decode.max_new_tokens=20", "task.score=distinct_2")
    assert gpt2x("task=generate", "prompt=Juliet", *options).code == 0
    rows = read_csv(run_dir(launch, "generate") / "generations.csv")
    encode = load_tokenizer(NANO).encode
    pairs = [pair for row in rows for ids in [encode(row["completion"])] for pair in pairwise(ids)]
    job = job_of(launch, "generate")
    distinct = len(set(pairs)) / len(pairs)
    logprob = sum(float(row["logprob"]) for row in rows) / sum(int(row["n_new_tokens"]) for row in rows)
    assert job["numbers"] == {"distinct_2": pytest.approx(distinct), "logprob": pytest.approx(logprob)}
    assert 0 < distinct < 1
    assert job["objective"] == job["numbers"]["distinct_2"]


def test_evaluate_over_several_texts(gpt2x: Cli, launch: Path) -> None:
    (launch / "texts.txt").write_text("To be, or not to be\nOnce more unto the breach, dear friends, once more\n")
    assert gpt2x("task=evaluate", "prompts_file=texts.txt").code == 0
    rows = read_csv(run_dir(launch, "evaluate") / "evaluation.csv")
    job = job_of(launch, "evaluate")
    for name, weight in (("bits_per_byte", "n_bytes"), ("loss", "n_tokens")):
        mean = sum(float(row[name]) * int(row[weight]) for row in rows) / sum(int(row[weight]) for row in rows)
        assert job["numbers"][name] == pytest.approx(mean, rel=1e-6)
    assert job["objective"] == job["numbers"]["bits_per_byte"]


@pytest.mark.parametrize("stages", ["logits", "config"])
def test_validate_with_and_without_logits(gpt2x: Cli, launch: Path, stages: str) -> None:
    assert gpt2x("weights=random", "model=nano", "model.n_layer=1", f"task.stages=[{stages}]").code == 0
    (row,) = read_csv(run_dir(launch, "validate") / "summary.csv")
    job = job_of(launch, "validate")
    expected = float(row["relative_difference"]) if stages == "logits" else None
    assert job["objective"] == pytest.approx(expected)
    numbers = {name: pytest.approx(float(row[name])) for name in row if name in job["numbers"]}
    assert job["numbers"] == numbers
    assert len(numbers) == (5 if stages == "logits" else 0)


def test_train_gives_its_best_evaluation(gpt2x: Cli, launch: Path) -> None:
    (launch / "text.txt").write_text("To be, or not to be, that is the question. " * 60)
    sizes = [f"model.{key}" for key in ("n_layer=1", "n_head=1", "n_embd=8", "n_positions=8", "vocab_size=260")]
    # At this learning rate the last evaluation is not the best.
    steps = (
        "task.steps=6",
        "task.eval_every=2",
        "task.batch_size=1",
        "task.lr=5",
        "task.min_lr=5",
        "task.warmup_steps=1",
    )
    assert gpt2x("task=train", "model=nano", *sizes, "task.data=text.txt", *steps).code == 0
    losses = [float(row["val_bits_per_byte"]) for row in read_csv(run_dir(launch, "train") / "train.csv")]
    assert min(losses) < losses[-1]
    assert job_of(launch, "train")["objective"] == pytest.approx(min(losses), rel=1e-6)
