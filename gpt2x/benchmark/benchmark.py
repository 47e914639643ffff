"""Measures how fast engines generate, side by side on the same weights and prompts."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from gpt2x.benchmark.agreement import Difference, differences, find_baseline
from gpt2x.benchmark.engines import Variant
from gpt2x.benchmark.machine import Floors, describe_machine, measure_floors
from gpt2x.benchmark.measure import draw_prompts, measure
from gpt2x.benchmark.participants import LeftOut, Participants, Progress, loaded
from gpt2x.benchmark.rows import BenchmarkRow
from gpt2x.benchmark.summarize import benchmark_rows
from gpt2x.checkpoints.exporting.hf import save_checkpoint
from gpt2x.checkpoints.load import Checkpoint
from gpt2x.config.tasks.benchmark import BenchmarkTask
from gpt2x.errors import UserError
from gpt2x.memory import check_fits

_OURS = (Variant("gpt2x", "float32"), Variant("gpt2x_lookup", "float32"))


@dataclass(frozen=True)
class Benchmark:
    """The result of a benchmark."""

    model: str
    weights: str
    machine: str
    prompt_tokens: int
    new_tokens: int
    rows: list[BenchmarkRow]
    versions: list[str]
    """`engine version`, once per engine."""
    floors: Floors
    left_out: list[LeftOut]
    baseline: Variant | None
    """The engine whose tokens the others' are compared with; None if neither transformers nor gpt2x was measured."""
    differences: list[Difference]
    seconds: dict[str, float]
    """The time spent on the floors, and on the measurement."""

    @property
    def failed(self) -> list[LeftOut]:
        """Engines that were asked for, and failed."""
        return [each for each in self.left_out if each.failed]

    @property
    def wrong_tokens(self) -> bool:
        """Whether gpt2x in float32 generates other tokens than the baseline, near ties apart."""
        return any(not each.tie for each in self.differences if each.variant in _OURS)

    @property
    def passed(self) -> bool:
        return not self.failed and not self.wrong_tokens


def run_benchmark(
    checkpoint: Checkpoint, task: BenchmarkTask, seed: int, progress: Progress = lambda what, done, total: None
) -> Benchmark:
    """Measures the engines of `task` on a checkpoint in float32 on the CPU, with random prompts drawn from `seed`.

    Raises UserError if the prompts do not fit in the model's context, or no engine could be measured, and
    DoesNotFitError if the engines do not fit in memory.
    """
    variants = [
        Variant(engine, dtype) for dtype in dict.fromkeys(task.dtypes) for engine in dict.fromkeys(task.engines)
    ]
    _check_sizes(checkpoint, task, len(variants))
    start = time.perf_counter()
    floors = measure_floors(checkpoint.model)
    seconds = {"floors": time.perf_counter() - start}
    vocab_size = checkpoint.model.config.vocab_size
    prompts = draw_prompts(max(task.batch_sizes), task.prompt_tokens, vocab_size, seed)
    with tempfile.TemporaryDirectory(prefix="gpt2x-") as folder:
        directory = Path(folder)
        save_checkpoint(directory, checkpoint.model, checkpoint.tokenizer, torch.float32)
        with loaded(variants, directory, torch.get_num_threads(), progress) as participants:
            _check_any(participants)
            start = time.perf_counter()
            measure(participants, prompts, task.batch_sizes, task.new_tokens, task.rounds, progress)
            seconds["measure"] = time.perf_counter() - start
            differing = _differences(participants, prompts)
            _check_any(participants)
    found = participants.measured
    baseline = find_baseline(found)
    return Benchmark(
        model=checkpoint.name,
        weights=checkpoint.weights,
        machine=describe_machine(),
        prompt_tokens=task.prompt_tokens,
        new_tokens=task.new_tokens,
        rows=benchmark_rows(found, task.prompt_tokens),
        versions=list(dict.fromkeys(f"{each.variant.engine} {each.version}" for each in found)),
        floors=floors,
        left_out=participants.left_out,
        baseline=baseline.variant if baseline else None,
        differences=differing,
        seconds=seconds,
    )


def _check_sizes(checkpoint: Checkpoint, task: BenchmarkTask, n_workers: int) -> None:
    n_positions = checkpoint.model.config.n_positions
    if task.prompt_tokens + task.new_tokens > n_positions:
        raise UserError(
            f"task.prompt_tokens={task.prompt_tokens} and task.new_tokens={task.new_tokens}: together more than the "
            f"model's context of {n_positions}"
        )
    n_bytes = sum(4 * parameter.numel() for parameter in checkpoint.model.parameters())
    check_fits(
        2 * n_bytes * n_workers,
        f"measuring {n_workers} engines, with two copies of the weights each,",
        "number of task.engines",
    )


def _check_any(participants: Participants) -> None:
    if participants.running:
        return
    reasons = ". ".join(f"{each.variant}: {each.reason}" for each in participants.left_out)
    if any(each.failed for each in participants.left_out):
        raise UserError(f"task.engines: none of them could be measured. {reasons}")
    raise UserError(f"task.engines: none of them can run here; pip install 'gpt2x[bench]'. {reasons}")


def _differences(participants: Participants, prompts: list[list[int]]) -> list[Difference]:
    """The differences from the baseline; if that fails when it is asked for logits, from the next one."""
    while (baseline := find_baseline(participants.measured)) is not None:
        worker = next(each.worker for each in participants.running if each.measured is baseline)
        with participants.guarded(worker):
            return differences(participants.measured, baseline, prompts, worker.margin)
    return []
