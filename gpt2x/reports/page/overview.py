"""The first lines of a report, its table of runs, and its table of failures."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2x.paths import shown
from gpt2x.reports.page.measures import MEASURES, Score
from gpt2x.reports.page.study import Group, Study, label, value_of
from gpt2x.runs.collect import short_names
from gpt2x.runs.job import Status
from gpt2x.runs.survey import Run

MOST_RUNS, MOST_FAILURES = 1000, 500
_MOST_VALUES = 12  # of a setting in the overview
_NO_FAILURES = (Status.DONE, Status.RUNNING)


@dataclass(frozen=True)
class Swept:
    """A setting with its values, for the overview."""

    name: str
    values: list[str]
    n_more: int


@dataclass(frozen=True)
class Kind:
    """The runs of one task, in the overview."""

    task: str
    n_runs: int
    swept: list[Swept]


@dataclass(frozen=True)
class Ended:
    """A run that is not done, and why."""

    folder: str
    settings: str
    state: Status
    error: str


@dataclass(frozen=True)
class RunTable:
    """The runs of one task with their main numbers."""

    task: str
    settings: list[str]
    scores: list[str]
    rows: list[tuple[Run, str, list[str], list[str]]]
    """Run, its folder seen from that of the report, values of the swept settings, scores."""
    total: int


def counts_of(runs: list[Run]) -> list[tuple[str, int]]:
    """Status -> number of runs, for those that occur."""
    counts = Counter(run.state for run in runs)
    return [(str(status), counts[status]) for status in Status if counts[status]]


def kinds_of(study: Study) -> list[Kind]:
    """The tasks with their swept settings."""
    return [Kind(group.task, len(group.runs), _swept(group)) for group in study.groups.values()]


def _swept(group: Group) -> list[Swept]:
    names = short_names(group.swept)
    found = []
    for key in group.swept:
        values = [label(value) for value in dict.fromkeys(value_of(run.job, key) for run in group.runs)]
        found.append(Swept(names[key], values[:_MOST_VALUES], max(0, len(values) - _MOST_VALUES)))
    return found


def failures_of(study: Study) -> list[Ended]:
    """All runs that ended otherwise than by being done: failed, skipped, interrupted, killed or damaged."""
    found = []
    for group in study.groups.values():
        names = short_names(group.swept)
        for run in group.runs:
            if run.state not in _NO_FAILURES:
                settings = ", ".join(f"{names[key]}={label(value_of(run.job, key))}" for key in group.swept)
                found.append(Ended(shown(run.folder), settings or f"task={group.task}", run.state, run.error or ""))
    return found


def run_table(group: Group, root: Path) -> RunTable:
    """The first runs of a task, with the scores of those that are done."""
    measured = MEASURES.get(group.task)
    scores = measured.scores if measured else ()
    rows_of = {result.run.folder: result.rows for result in group.results}
    names = short_names(group.swept)
    rows = []
    for run in group.runs[:MOST_RUNS]:
        own = measured.select(rows_of.get(run.folder, [])) if measured else []
        settings = [label(value_of(run.job, key)) for key in group.swept]
        folder = str(run.folder.relative_to(root)) if run.folder != root else run.folder.name
        rows.append((run, folder, settings, [_score(score, own) for score in scores]))
    return RunTable(
        group.task, [names[key] for key in group.swept], [score.name for score in scores], rows, len(group.runs)
    )


def _score(score: Score, rows: list[Any]) -> str:
    numerator, denominator = (sum(part) for part in zip(*map(score.of, rows), strict=True)) if rows else (0, 0)
    return f"{numerator / denominator:.4g}" if denominator else ""
