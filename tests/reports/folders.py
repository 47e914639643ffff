"""Run folders as gpt2x writes them, made without running a model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpt2x.benchmark.rows import BenchmarkRow
from gpt2x.decoding.rows import GenerationRow
from gpt2x.evaluation.rows import EvaluationRow
from gpt2x.parity.rows import ParityRow, SummaryRow
from gpt2x.runs.job import Identity, Job, Status
from gpt2x.runs.tables import write_rows
from gpt2x.training.rows import TrainRow

MANIFEST = {
    "versions": {"gpt2x": "0.1.0", "torch": "2.13.0"},
    "machine": "Linux-of-the-test",
    "git_commit": "0123456789abcdef",
    "git_dirty": True,
    "device": "cpu",
    "threads": 2,
    "checkpoint": {"weights": "nano", "path": "/data/nano", "sha256": {"model.safetensors": "f00d" * 16}},
}


def job_folder(
    folder: Path,
    task: str,
    settings: dict[str, Any],
    number: int | None = None,
    status: Status = Status.DONE,
    **fields: Any,
) -> Path:
    """The folder of a job with these overrides; `number` is its place in a sweep."""
    folder.mkdir(parents=True)
    overrides = [f"task={task}", *(f"{key}={json.dumps(value)}" for key, value in settings.items())]
    identity = Identity({"seed": 0, "decode.top_p": None} | settings, {"weights": ["f00d" * 16]})
    job = Job(task, overrides, {"task": task, **settings}, identity, number=number, invocation="20260101-000000-000000")
    for name, value in ({"passed": True, "seconds": 1.5} | fields).items():
        setattr(job, name, value)
    job.status = status
    job.write(folder)
    if status is Status.DONE:
        (folder / "manifest.json").write_text(json.dumps(MANIFEST), encoding="utf-8")
    return folder


def sweep_json(folder: Path, *overrides: str) -> None:
    """The sweep.json of one command."""
    content = {"invocations": [{"stamp": "20260101-000000-000000", "overrides": overrides, "refused": []}], "jobs": []}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps(content), encoding="utf-8")


def text_row(completion: str, prompt: str = "To be", **fields: Any) -> GenerationRow:
    """A row of generations.csv."""
    row: dict[str, Any] = {"prompt_id": "0", "sample": 0, "prompt": prompt, "completion": completion}
    row |= {"n_prompt_tokens": 2, "n_new_tokens": 10, "finish_reason": "length", "logprob": -20.0}
    row |= {"model": "nano", "weights": "data/nano", "device": "cpu", "dtype": "float32", "greedy": False}
    row |= {"temperature": 1.0, "top_k": None, "top_p": None, "min_p": None, "typical_p": None}
    row |= {"repetition_penalty": 1.0, "no_repeat_ngram_size": None, "max_new_tokens": 10, "min_new_tokens": 0}
    row |= {"stop": None, "num_beams": 1, "length_penalty": 1.0, "on_overflow": "refuse", "seed": 0}
    return GenerationRow(**(row | fields))


def generation(
    folder: Path, settings: dict[str, Any], rows: Sequence[GenerationRow], number: int | None = None
) -> Path:
    """A run of task=generate that is done."""
    write_rows(job_folder(folder, "generate", settings, number) / "generations.csv", GenerationRow, rows)
    return folder


def validation(folder: Path, passed: bool, cause: str = "exact (erf) GELU instead of tanh") -> Path:
    """A run of task=validate: with two layers, in the second of which the MLP is wrong unless it passed."""
    job_folder(folder, "validate", {"subject.target": f"{folder.name}.py:f"}, passed=passed)
    place = "" if passed else "h.1.mlp"
    summary = SummaryRow(
        *("nano", "data/nano", f"{folder.name}.py:f", "cpu", "float32", 100, 100, "pass" if passed else "fail", place),
        *("" if passed else cause, 1e-4, 1e-9, 1.0, 1, 1, 1e-15 if passed else 3e-4, 1.0),
    )
    write_rows(folder / "summary.csv", SummaryRow, [summary])
    errors = {f"h.{i}.{part}": 1e-16 for i in range(2) for part in ("ln_1", "attn", "ln_2", "mlp")} | {"ln_f": 0.0}
    errors |= {} if passed else {"h.1.mlp": 3e-4}
    rows = [
        ParityRow(
            "layers", site, "isolated", "relative_difference", error, 1e-9, "ok" if error < 1e-9 else "mismatch", ""
        )
        for site, error in errors.items()
    ]
    write_rows(folder / "parity.csv", ParityRow, rows)
    return folder


def evaluation(folder: Path, stride: int, bits: float, number: int | None = None) -> Path:
    """A run of task=evaluate on one text."""
    job_folder(folder, "evaluate", {"task.stride": stride}, number)
    row = EvaluationRow("0", 100, 400, 2.5, 12.2, bits, stride, "nano", "data/nano", "float32")
    write_rows(folder / "evaluation.csv", EvaluationRow, [row])
    return folder


def training(folder: Path, lr: float, number: int | None = None) -> Path:
    """A run of task=train with three evaluations."""
    job_folder(folder, "train", {"task.lr": lr}, number)
    rows = [TrainRow(step, 6 - step * lr, 6.1 - step * lr, 4 - step * lr, lr, step * 100) for step in (10, 20, 30)]
    write_rows(folder / "train.csv", TrainRow, rows)
    return folder


def benchmark(folder: Path) -> Path:
    """A run of task=benchmark with two engines and two batch sizes."""
    job_folder(folder, "benchmark", {})
    rows = [
        BenchmarkRow(
            engine, "float32", batch, 4, 4, ms * batch, ms * batch - 1, ms * batch + 1, 100, None, 9, 300, 0.1, 1
        )
        for batch in (1, 8)
        for engine, ms in (("gpt2x", 5.0), ("transformers", 7.0))
    ]
    write_rows(folder / "benchmark.csv", BenchmarkRow, rows)
    return folder
