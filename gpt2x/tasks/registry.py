"""The tasks: what each of them runs, and which files it may leave in its run folder. Importing this loads no torch."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt2x.benchmark.rows import BenchmarkRow
from gpt2x.config.schema import Config
from gpt2x.config.weights import WeightsConfig
from gpt2x.decoding.rows import GenerationRow, TokenRow
from gpt2x.evaluation.rows import EvaluationRow
from gpt2x.parity.rows import ParityRow, SideBySideRow, SummaryRow
from gpt2x.prompts import PROMPT_FILES
from gpt2x.runs.collect import JOBS
from gpt2x.runs.tables import TimingRow
from gpt2x.tasks.outcome import Outcome
from gpt2x.training.rows import TrainRow


@dataclass(frozen=True)
class Task:
    """A task of the command line. Its settings are the schema of the same name in gpt2x.config.tasks."""

    name: str
    tables: dict[str, type]
    """File name -> type of its rows."""
    files: tuple[str, ...] = ()
    """Other files and folders that it writes."""
    saves_memory: str = "a smaller model or dtype"
    """What to make smaller if the task does not fit in memory."""
    state: str | None = None
    """The file from which a killed run can be continued."""
    inputs: tuple[str, ...] = field(default=())
    """Settings that name a file to read, by dotted key. The file's content identifies the run, not its path.

    Those of PROMPT_FILES may name standard input too.
    """
    reads_weights: Callable[[WeightsConfig], bool] = lambda weights: True
    """Whether the task reads weights with these settings."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """All that the task may leave in its run folder."""
        return (*self.tables, *self.files)

    def load(self) -> Callable[[Config, Any, Path], Outcome]:
        """The function `run(config, settings of the task, run folder)`; importing it imports torch."""
        run: Callable[[Config, Any, Path], Outcome] = importlib.import_module(f"gpt2x.tasks.{self.name}").run
        return run


ALL = (
    Task(
        "validate",
        {"summary.csv": SummaryRow, "parity.csv": ParityRow, "side_by_side.csv": SideBySideRow},
        saves_memory="a smaller model, a shorter prompt or fewer task.stages",
        files=("parity.png",),
        inputs=("prompt_file", "task.reference"),
    ),
    Task(
        "generate",
        {"generations.csv": GenerationRow, "tokens.csv": TokenRow},
        saves_memory="a smaller model, batch_size or decode.max_new_tokens",
        state="state.json",
        inputs=PROMPT_FILES,
    ),
    Task(
        "train",
        {"train.csv": TrainRow},
        saves_memory="a smaller model, task.batch_size or model.n_positions",
        files=("checkpoint",),
        state="state.pt",
        inputs=("task.data",),
        reads_weights=lambda weights: weights.path is not None or weights.source == "auto",
    ),
    Task(
        "evaluate",
        {"evaluation.csv": EvaluationRow},
        saves_memory="a smaller model or dtype",
        inputs=("task.data", "prompts_file"),
    ),
    Task(
        "benchmark",
        {"benchmark.csv": BenchmarkRow},
        saves_memory="a smaller model, fewer task.engines or smaller task.batch_sizes",
        files=("benchmark.png",),
    ),
)

TABLES: dict[str, type] = {name: row for task in ALL for name, row in task.tables.items()}
"""All tables of all tasks, and the one of every run."""
TABLES["timing.csv"] = TimingRow

COLLECT = Task("collect", {}, files=(JOBS, *TABLES), saves_memory="fewer runs", reads_weights=lambda weights: False)

TASKS = {task.name: task for task in (*ALL, COLLECT)}
