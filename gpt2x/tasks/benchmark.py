"""task=benchmark: how fast does gpt2x generate, compared with transformers, CTranslate2 and OpenVINO?"""

from pathlib import Path

import torch

from gpt2x.benchmark.benchmark import run_benchmark
from gpt2x.benchmark.rows import BenchmarkRow
from gpt2x.checkpoints.load import load_checkpoint
from gpt2x.config.schema import Config
from gpt2x.errors import UserError
from gpt2x.reports.benchmark import progress, show
from gpt2x.reports.benchmark_chart import draw
from gpt2x.runs.manifest import Outcome
from gpt2x.runs.tables import write_rows


def run(config: Config, run_dir: Path) -> Outcome:
    """Measures, and writes benchmark.csv and benchmark.png.

    Outcome.passed is False if an engine fails, or if gpt2x in float32 generates other tokens than transformers does,
    near ties apart. Raises UserError for what cannot be measured.
    """
    _check_settings(config)
    outcome = Outcome(device=torch.device("cpu"))
    with outcome.timed("load"):
        checkpoint = load_checkpoint(config.model, config.weights, torch.float32, torch.device("cpu"))
    outcome.checkpoint = checkpoint
    with progress() as advance:
        result = run_benchmark(checkpoint, config.task, config.seed, advance)
    outcome.timings |= result.seconds
    outcome.passed = result.passed
    write_rows(run_dir / "benchmark.csv", BenchmarkRow, result.rows)
    draw(result, run_dir / "benchmark.png")
    show(result, run_dir)
    return outcome


def _check_settings(config: Config) -> None:
    if config.device.name not in ("auto", "cpu"):
        raise UserError(f"device={config.device.name}: task=benchmark measures the CPU; leave device out")
    if config.dtype != "float32":
        raise UserError(f"dtype={config.dtype}: task=benchmark takes several, as task.dtypes=[{config.dtype}]")
    if config.batch_size != "auto":
        raise UserError(f"batch_size={config.batch_size}: task=benchmark takes several, as task.batch_sizes=[1,8]")
    if config.prompts_file is not None:
        raise UserError("prompts_file is for task=generate; benchmark draws random prompts")
    key = config.decode.first_set_but("greedy")
    if key is not None:
        raise UserError(f"decode.{key} is for task=generate; benchmark decodes greedily")
