"""The tasks: what each of them runs, and which files it may leave in its run folder. Importing this loads no torch."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt2x.benchmark.rows import BenchmarkRow
from gpt2x.checkpoints.rows import DownloadRow
from gpt2x.config.objective import Objective
from gpt2x.config.schema import Config
from gpt2x.config.tasks.generate import SCORES
from gpt2x.config.weights import WeightsConfig
from gpt2x.decoding.rows import GenerationRow, TokenRow
from gpt2x.evaluation.rows import EvaluationRow
from gpt2x.parity.conversion.rows import ReaderRow, TensorRow
from gpt2x.parity.process.fork_server import begin_server, can_fork
from gpt2x.parity.rows import CauseRow, ParityRow, SideBySideRow, SummaryRow
from gpt2x.prompts import PROMPT_FILES
from gpt2x.runs.collect import JOBS
from gpt2x.runs.tables import TimingRow
from gpt2x.tasks.outcome import WEIGHTS, Outcome
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
    objectives: tuple[Objective, ...] = ()
    """What a search can optimize: what `task.score` names, if the task has this setting, or else the first."""
    curve: str | None = None
    """The table with a column `step`, whose other columns a tracker draws over the steps."""
    reads_weights: Callable[[WeightsConfig], bool] = lambda weights: True
    """Whether the task reads weights with these settings."""
    prepare: Callable[[Config], None] = lambda config: None
    """Begins what other processes can do while the task's module imports torch."""

    def objective(self, score: str | None = None) -> Objective | None:
        """What a search optimizes, given the task's setting `score`; None if the task computes no such number."""
        return next((each for each in self.objectives if score in (None, each.name)), None)

    @property
    def outputs(self) -> tuple[str, ...]:
        """All that the task may leave in its run folder."""
        return (*self.tables, *self.files)

    def load(self) -> Callable[[Config, Any, Path], Outcome]:
        """The function `run(config, settings of the task, run folder)`; importing it imports torch."""
        run: Callable[[Config, Any, Path], Outcome] = importlib.import_module(f"gpt2x.tasks.{self.name}").run
        return run


def _begin_subject(config: Config) -> None:
    """A subject's code runs in another process, which needs torch as well."""
    if config.subject.target is not None and config.subject.kind == "module" and can_fork():
        begin_server()


ALL = (
    Task(
        "validate",
        {
            "summary.csv": SummaryRow,
            "causes.csv": CauseRow,
            "parity.csv": ParityRow,
            "side_by_side.csv": SideBySideRow,
        },
        saves_memory="a smaller model, a shorter prompt or fewer task.stages",
        files=("parity.png", "suggestion.patch", WEIGHTS),
        inputs=("prompt_file", "task.reference"),
        objectives=(Objective("relative_difference"),),
        prepare=_begin_subject,
    ),
    Task(
        "generate",
        {"generations.csv": GenerationRow, "tokens.csv": TokenRow},
        saves_memory="a smaller model, batch_size or decode.max_new_tokens",
        files=(WEIGHTS,),
        state="state.json",
        inputs=PROMPT_FILES,
        objectives=SCORES,
    ),
    Task(
        "train",
        {"train.csv": TrainRow},
        curve="train.csv",
        saves_memory="a smaller model, task.batch_size or model.n_positions",
        files=("checkpoint", WEIGHTS),
        state="state.pt",
        inputs=("task.data",),
        objectives=(Objective("val_bits_per_byte"),),
        reads_weights=lambda weights: weights.path is not None or weights.source == "auto",
    ),
    Task(
        "evaluate",
        {"evaluation.csv": EvaluationRow},
        files=(WEIGHTS,),
        saves_memory="a smaller model or dtype",
        inputs=("task.data", "prompts_file"),
        objectives=(Objective("bits_per_byte"),),
    ),
    Task(
        "benchmark",
        {"benchmark.csv": BenchmarkRow},
        saves_memory="a smaller model, fewer task.engines or smaller task.batch_sizes",
        files=("benchmark.png", WEIGHTS),
        objectives=(Objective("ms_per_step"),),
    ),
    Task("inspect", {}, files=(WEIGHTS,)),
    Task(
        "download",
        {"download.csv": DownloadRow},
        reads_weights=lambda weights: False,
    ),
    Task(
        "export",
        {"certificate.csv": ReaderRow, "tensors.csv": TensorRow},
        files=("certificate.json", "export", WEIGHTS),
    ),
    Task(
        "report",
        {},
        saves_memory="a folder with fewer runs",
        files=("report.html",),
        reads_weights=lambda weights: False,
    ),
)

TABLES: dict[str, type] = {name: row for task in ALL for name, row in task.tables.items()}
"""All tables of all tasks, and the one of every run."""
TABLES["timing.csv"] = TimingRow

COLLECT = Task("collect", {}, files=(JOBS, *TABLES), saves_memory="fewer runs", reads_weights=lambda weights: False)

TASKS = {task.name: task for task in (*ALL, COLLECT)}
