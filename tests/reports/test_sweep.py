"""The console after a sweep: settings against the main numbers of the jobs, and the folder."""

import re
from pathlib import Path

from tests.benchmark.test_benchmark import at_once
from tests.conftest import Cli, read_csv
from tests.tasks.test_train import TINY, text

__all__ = ["at_once", "text"]


def summary(out: str) -> tuple[list[str], list[list[str]], list[str]]:
    """The headings, the rows and the last lines of what is printed after a sweep."""
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("status "))
    end = next(i for i, line in enumerate(lines) if i > start and re.match(r"\d+ job|and \d+ more", line))
    assert all(len(line) <= 80 for line in lines[start:])
    head, *rows = (re.split(r"\s{2,}", line.strip()) for line in lines[start:end])
    return head, rows, lines[end:]


def test_generate(gpt2x: Cli, launch: Path) -> None:
    args = ("task=generate", "decode.max_new_tokens=3", "decode.num_samples=2", "hydra.sweep.dir=out")
    result = gpt2x("-m", *args, "decode.top_p=0.5,0", "prompt=Now,'a text of many words\nthat does not fit in a line'")
    assert result.code == 3
    head, rows, last = summary(result.out)
    assert head == ["status", "top_p", "prompt", "samples", "logprob/token", "new tokens"]
    assert [row[:4] for row in rows] == [
        ["done", "0.5", "Now", "2"],
        ["done", "0.5", "a text of many words⏎ that d…", "2"],
        ["failed", "0.0", "Now"],
        ["failed", "0.0", "a text of many words⏎ that d…"],
    ]
    found = read_csv(launch / "out" / "generations.csv")[:2]
    tokens = sum(int(row["n_new_tokens"]) for row in found)
    assert rows[0][4] == f"{sum(float(row['logprob']) for row in found) / tokens:.3f}"
    assert rows[0][5] == f"{tokens / 2:.1f}"
    ids = [job["job"] for job in read_csv(launch / "out" / "jobs.csv")[2:]]
    assert last == [
        "4 jobs: 2 done, 2 failed",
        f"failed {ids[0]} top_p=0.0 prompt=Now: decode.top_p=0.0: must be above 0 and",
        "    at most 1",
        f"failed {ids[1]} top_p=0.0 prompt=a text of many words that does not [...]:",
        "    decode.top_p=0.0: must be above 0 and at most 1",
        "results in out",
    ]


def test_validate(gpt2x: Cli, launch: Path) -> None:
    result = gpt2x("-m", "dtype=float32,int8", "task.stages=[logits]", "hydra.sweep.dir=out")
    head, rows, last = summary(result.out)
    assert head == ["status", "dtype", "rel. difference"]
    summaries = read_csv(launch / "out" / "summary.csv")
    assert rows == [["pass", row["dtype"], f"{float(row['relative_difference']):.2g}"] for row in summaries]
    assert last == ["2 jobs: 2 done", "results in out"]


def test_many_jobs(gpt2x: Cli, launch: Path) -> None:
    args = ("task=generate", "decode.max_new_tokens=1", "hydra.sweep.dir=out")
    result = gpt2x("-m", *args, f"seed={','.join(map(str, range(23)))}")
    _, rows, last = summary(result.out)
    assert [row[1] for row in rows] == [str(i) for i in range(20)]
    assert last == ["and 3 more", "23 jobs: 23 done", "results in out"]


def test_equal_last_parts_are_told_apart(gpt2x: Cli, launch: Path) -> None:
    args = ("task=generate", "model=nano", "weights=random", "decode.max_new_tokens=1", "hydra.sweep.dir=out")
    result = gpt2x("-m", *args, "seed=1,2", "weights.seed=3,4")
    assert summary(result.out)[0][:3] == ["status", "seed", "weights.seed"]


def test_a_sweep_that_could_not_begin_shows_nothing(gpt2x: Cli, launch: Path) -> None:
    (launch / "out").write_text("")
    result = gpt2x("-m", "task=generate", "seed=1,2", "hydra.sweep.dir=out")
    assert (result.code, result.out) == (2, "")


def test_train(gpt2x: Cli, launch: Path, text: Path) -> None:
    result = gpt2x("-m", *TINY, f"task.data={text}", "task.steps=6", "task.eval_every=3", "task.lr=0.01,0.1")
    head, rows, last = summary(result.out)
    assert head == ["status", "lr", "bits per byte"]
    (sweep,) = (launch / "runs" / "sweeps").iterdir()
    found = read_csv(sweep / "train.csv")
    for row, lr in zip(rows, ("0.01", "0.1"), strict=True):
        losses = [float(each["val_bits_per_byte"]) for each in found if each["task.lr"] == lr]
        assert row == ["done", lr, f"{min(losses):.4f}"]
    assert last[-1] == f"results in {sweep.relative_to(launch)}"


def test_benchmark(gpt2x: Cli, launch: Path, at_once: None) -> None:
    args = ("task=benchmark", "task.engines=[gpt2x]", "task.batch_sizes=[1,2]", "task.prompt_tokens=4", "task.rounds=1")
    result = gpt2x("-m", *args, "task.new_tokens=2,3", "hydra.sweep.dir=out")
    head, rows, _ = summary(result.out)
    assert head == ["status", "new_tokens", "tokens/s"]
    found = read_csv(launch / "out" / "benchmark.csv")
    for row, new_tokens in zip(rows, ("2", "3"), strict=True):
        speeds = [float(each["tokens_per_second"]) for each in found if each["new_tokens"] == new_tokens]
        assert row == ["done", new_tokens, f"{max(speeds):,.0f}"]


def test_every_single_run_ends_with_its_folder(gpt2x: Cli, launch: Path, text: Path) -> None:
    runs = (
        ("task.stages=[logits]",),
        ("task=generate", 'prompt=["a","b"]', "decode.max_new_tokens=1"),
        (*TINY, f"task.data={text}", "task.steps=1"),
    )
    for args in runs:
        result = gpt2x(*args, "hydra.run.dir=out")
        assert (result.code, result.err, result.out.splitlines()[-1]) == (0, "", "results in out")
