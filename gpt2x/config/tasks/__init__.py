"""The schemas of the tasks: each task has its own dataclass, with its settings under `task.`.

`uses` lists the shared settings that the task reads (groups, or single settings by dotted key); all others are
refused when they are set. `neutral` lists those among them that do not change the task's results.
"""

from dataclasses import fields
from functools import cache
from typing import ClassVar, Protocol

from gpt2x.config.sweep import OF_SWEEP
from gpt2x.config.tasks.benchmark import BenchmarkTask
from gpt2x.config.tasks.collect import CollectTask
from gpt2x.config.tasks.download import DownloadTask
from gpt2x.config.tasks.evaluate import EvaluateTask
from gpt2x.config.tasks.export import ExportTask
from gpt2x.config.tasks.generate import GenerateTask
from gpt2x.config.tasks.inspect import InspectTask
from gpt2x.config.tasks.report import ReportTask
from gpt2x.config.tasks.train import TrainTask
from gpt2x.config.tasks.validate import ValidateTask


class TaskSettings(Protocol):
    """What all schemas of tasks have in common."""

    uses: ClassVar[tuple[str, ...]]
    neutral: ClassVar[tuple[str, ...]]
    name: str


DESCRIPTIVE = ("notes", "tracking")
"""Settings and groups of every task that describe a run and change nothing: they are no part of its identity."""

SCHEMAS: dict[str, type[TaskSettings]] = {
    "validate": ValidateTask,
    "generate": GenerateTask,
    "train": TrainTask,
    "evaluate": EvaluateTask,
    "benchmark": BenchmarkTask,
    "inspect": InspectTask,
    "download": DownloadTask,
    "export": ExportTask,
    "collect": CollectTask,
    "report": ReportTask,
}

READERS = ("collect", "report")
"""Tasks that read the folders of other runs. They are no job of a sweep."""


def is_descriptive(key: str) -> bool:
    """Whether a setting, given by its dotted key or as a group, only describes a run."""
    return key.partition(".")[0] in DESCRIPTIVE


def tasks_with(key: str) -> list[str]:
    """Names of the tasks that read a setting, given by its dotted key or as a group."""
    if key.startswith("task."):
        leaf = key.removeprefix("task.").partition(".")[0]
        return [name for name, schema in SCHEMAS.items() if leaf in {field.name for field in fields(schema)}]  # type: ignore[arg-type]
    return [name for name, schema in SCHEMAS.items() if reads(schema, key)]


@cache
def is_used(task: str, key: str) -> bool:
    """Whether a task reads a setting: one under `task.`, or a shared one."""
    return task in tasks_with(key)


def reads(schema: type[TaskSettings], key: str) -> bool:
    """Whether a task reads a shared setting, or a part of it."""
    if is_descriptive(key) or (key in OF_SWEEP and schema.name not in READERS):
        return True
    return any(key == used or key.startswith(f"{used}.") or used.startswith(f"{key}.") for used in schema.uses)
