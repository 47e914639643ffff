"""task=benchmark: how fast does gpt2x generate, compared with transformers, CTranslate2, OpenVINO and llama.cpp?"""

from pathlib import Path
from statistics import fmean

import torch

from gpt2x.benchmark.benchmark import run_benchmark
from gpt2x.benchmark.rows import BenchmarkRow
from gpt2x.checkpoints.load import load_checkpoint
from gpt2x.config.schema import Config
from gpt2x.config.tasks.benchmark import BenchmarkTask
from gpt2x.reports.benchmark import progress, show
from gpt2x.reports.benchmark_chart import draw
from gpt2x.runs.tables import write_rows
from gpt2x.tasks.outcome import Outcome


def run(config: Config, task: BenchmarkTask, run_dir: Path) -> Outcome:
    """Measures, and writes benchmark.csv and benchmark.png.

    Outcome.passed is False if an engine fails, or if gpt2x in float32 generates other tokens than transformers does,
    near ties apart. Raises UserError for what cannot be measured.
    """
    outcome = Outcome(device=torch.device("cpu"))
    with outcome.timed("load"):
        checkpoint = load_checkpoint(config.model, config.weights, torch.float32, torch.device("cpu"))
    outcome.loaded(checkpoint, run_dir)
    with progress() as advance:
        result = run_benchmark(checkpoint, task, config.seed, advance)
    outcome.timings |= result.seconds
    outcome.passed = result.passed
    write_rows(run_dir / "benchmark.csv", BenchmarkRow, result.rows)
    draw(result, run_dir / "benchmark.png")
    steps = [row.ms_per_step for row in result.rows if row.engine == "gpt2x"]
    outcome.numbers = {"ms_per_step": fmean(steps) if steps else None}
    show(result)
    return outcome
