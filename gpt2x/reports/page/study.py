"""What a report is about: the runs of a folder, grouped by task, with the rows of their tables."""

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt2x.config.tasks import SCHEMAS
from gpt2x.parity.rows import ParityRow
from gpt2x.paths import shown
from gpt2x.reports.page.measures import MEASURES
from gpt2x.runs.collect import as_cell
from gpt2x.runs.job import Job
from gpt2x.runs.survey import Run, Survey, survey
from gpt2x.runs.tables import read_rows

_NO_SETTING = ("task", "notes", "experiment")
"""Overrides that say what runs or describe it, rather than how. What a preset sets is swept by its own keys."""


@dataclass(frozen=True)
class Result:
    """A run that is done, with the rows of its task's table."""

    run: Run
    rows: list[Any]


@dataclass(frozen=True)
class Group:
    """The runs of one task."""

    task: str
    runs: list[Run]
    results: list[Result]
    """Those that are done and whose table could be read."""
    swept: list[str]
    """Keys of the settings that differ between the runs and can change their results."""
    origin: Path | None = None
    """The folder of the sweep that all of them belong to; None for any others."""

    def by_sweep(self) -> "list[Group]":
        """The runs of each sweep on their own, as only they have the same other settings; then those of no sweep."""
        origins = dict.fromkeys(_origin(run) for run in self.runs)
        return [self._from(origin) for origin in sorted(origins, key=lambda each: (each is None, each))]

    def _from(self, origin: Path | None) -> "Group":
        runs = [run for run in self.runs if _origin(run) == origin]
        results = [result for result in self.results if _origin(result.run) == origin]
        return Group(self.task, runs, results, swept([run.job for run in runs]), origin)


@dataclass(frozen=True)
class Study:
    """What the page shows."""

    folder: Path
    runs: list[Run]
    sweeps: list[Path]
    groups: dict[str, Group]
    """By task, in the order of MEASURES, then the other tasks."""
    notes: list[str] = field(default_factory=list)
    """What could not be read, and is therefore not on the page."""
    replaced: int = 0
    """Jobs of sweeps that are left out, because later ones have replaced them."""
    stale: int = 0
    """Jobs of sweeps that are on the page, and are stale."""


def _origin(run: Run) -> Path | None:
    return run.folder.parent if run.job.number is not None else None


def read_study(folder: Path) -> Study:
    """Reads all runs at and below the folder but those of task=report, and jobs of sweeps that others have replaced.

    Raises UserError if there is no run. What cannot be read is left out, and a note says so.
    """
    read = {each.table: each.row_type for each in MEASURES.values()} | {"parity.csv": ParityRow}
    found = survey(folder, read, without=("report",))
    tasks = dict.fromkeys([*MEASURES, *(run.job.task for run in found.runs)])
    groups = {task: _group(task, found) for task in tasks}
    groups = {task: group for task, group in groups.items() if group.runs}
    return Study(folder, found.runs, found.sweeps, groups, found.notes, found.replaced, found.stale)


def _group(task: str, found: Survey) -> Group:
    runs = [run for run in found.runs if run.job.task == task]
    results = []
    if task in MEASURES:
        measured = MEASURES[task]
        for run in runs:
            rows = read_table(run.folder / measured.table, measured.row_type, found.notes) if run.done else None
            if rows is not None:
                results.append(Result(run, rows))
    return Group(task, runs, results, swept([run.job for run in runs]))


def read_table(file: Path, row_type: type, notes: list[str]) -> list[Any] | None:
    """The rows of a table; None if it cannot be read, which is noted."""
    try:
        return read_rows(file, row_type)
    except FileNotFoundError:
        notes.append(f"{shown(file)}: is missing, although the run is done")
    except (OSError, ValueError, TypeError, csv.Error) as error:
        notes.append(f"{shown(file)}: cannot be read, so its rows are left out: {error}")
    return None


def swept(jobs: list[Job]) -> list[str]:
    """The keys of the overrides whose values differ between jobs of one task, in the order of the command lines."""
    keys = dict.fromkeys(key for job in jobs for key in job.chosen if key not in _NO_SETTING)
    neutral = SCHEMAS[jobs[0].task].neutral if jobs and jobs[0].task in SCHEMAS else ()
    return [key for key in keys if key not in neutral and len({value_of(job, key) for job in jobs}) > 1]


def value_of(job: Job, key: str) -> Any:
    """The value of a setting in a job: text, a number, a truth value or None; a list as JSON."""
    settings = job.settings
    return as_cell(settings.get(key, settings.get(f"{key}.name", settings.get(f"{key}.source"))))


def label(value: Any) -> str:
    """The value of a setting, as it is typed on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.9g}" if isinstance(value, float) else str(value)
