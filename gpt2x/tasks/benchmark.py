"""task=benchmark: how fast does gpt2x generate, beside transformers, CTranslate2 and OpenVINO?"""

import tempfile
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from gpt2x.benchmark.agreement import differences
from gpt2x.benchmark.machine import describe_machine, measure_floors
from gpt2x.benchmark.measure import draw_prompts, loaded, measure
from gpt2x.benchmark.rows import BenchmarkRow
from gpt2x.benchmark.summarize import benchmark_rows
from gpt2x.checkpoints.export import save_checkpoint
from gpt2x.checkpoints.load import Checkpoint, load_checkpoint
from gpt2x.config.schema import Config
from gpt2x.config.tasks.benchmark import BenchmarkTask
from gpt2x.errors import UserError
from gpt2x.memory import check_fits
from gpt2x.paths import shown
from gpt2x.reports import console
from gpt2x.reports.benchmark import show
from gpt2x.reports.benchmark_chart import draw
from gpt2x.runs.tables import write_rows
from gpt2x.tasks.outcome import Outcome


def run(config: Config, task: BenchmarkTask, run_dir: Path) -> Outcome:
    """Measures, and writes benchmark.csv and benchmark.png.

    Outcome.passed is False where gpt2x in float32 generates other tokens than transformers does, near ties apart.
    UserError for what cannot be measured.
    """
    outcome = Outcome(device=torch.device("cpu"))
    with outcome.timed("load"):
        checkpoint = load_checkpoint(config.model, config.weights, torch.float32, torch.device("cpu"))
    outcome.checkpoint = checkpoint
    _check_sizes(checkpoint, task)
    with outcome.timed("floors"):
        floors = measure_floors(checkpoint.model)
    vocab_size = checkpoint.model.config.vocab_size
    prompts = draw_prompts(max(task.batch_sizes), task.prompt_tokens, vocab_size, config.seed)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with console.progress(*columns) as bar, tempfile.TemporaryDirectory(prefix="gpt2x-") as folder:
        step = bar.add_task("starting", total=None)
        directory = Path(folder)
        save_checkpoint(directory, checkpoint.model, checkpoint.tokenizer, torch.float32)

        def advance(what: str) -> None:
            bar.update(step, advance=1, description=what)

        with loaded(task, directory, torch.get_num_threads(), _say, advance) as found:
            if not found:
                raise UserError("task.engines: none of them can run here; pip install 'gpt2x[bench]'")
            bar.reset(step, total=(1 + task.rounds) * len(set(task.batch_sizes)) * len(found))
            with outcome.timed("measure"):
                measure(found, prompts, task, advance)
            differing = differences(found, prompts)
        rows = benchmark_rows(found, task.prompt_tokens)
        versions = list(dict.fromkeys(f"{each.worker.engine} {each.version}" for each in found))
    ours = [("gpt2x", "float32"), ("gpt2x_lookup", "float32")]
    outcome.passed = all(each.tie for each in differing if each.name in ours)
    write_rows(run_dir / "benchmark.csv", BenchmarkRow, rows)
    title = f"{checkpoint.name} · {checkpoint.weights} · {task.prompt_tokens} + {task.new_tokens} tokens"
    title += f" · {describe_machine()}"
    draw(rows, floors, title, run_dir / "benchmark.png")
    show(title, rows, floors, versions, differing)
    if not outcome.passed:
        console.out.print("FAIL  gpt2x generates other tokens than transformers, in float32 and not at near ties")
    console.out.print(f"results in {shown(run_dir)}", soft_wrap=True)
    return outcome


def _say(line: str) -> None:
    console.out.print(line, soft_wrap=True)


def _check_sizes(checkpoint: Checkpoint, task: BenchmarkTask) -> None:
    n_positions = checkpoint.model.config.n_positions
    if task.prompt_tokens + task.new_tokens > n_positions:
        raise UserError(
            f"task.prompt_tokens={task.prompt_tokens} and task.new_tokens={task.new_tokens}: together more than the "
            f"model's context of {n_positions}"
        )
    n_workers = len(set(task.engines)) * len(set(task.dtypes))
    n_bytes = sum(4 * parameter.numel() for parameter in checkpoint.model.parameters())
    check_fits(2 * n_bytes * n_workers, f"measuring {n_workers} engines, with two copies of the weights each,")
