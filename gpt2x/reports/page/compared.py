"""The comparisons of a task as a page shows them: one chart per score, and the numbers as a table."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from gpt2x.reports.page.charts import score_chart
from gpt2x.reports.page.comparison import Comparison, Point, compare
from gpt2x.reports.page.measures import MEASURES, Score
from gpt2x.reports.page.study import Group
from gpt2x.reports.page.svg import svg_of

MOST_COMPARISONS = 24  # per task
_MOST_NUMBERS = 200


@dataclass(frozen=True)
class Chart:
    """A drawing with its caption, or the one value that a score has everywhere."""

    svg: Markup | None
    title: str
    meaning: str
    constant: float | None


@dataclass(frozen=True)
class NumberRow:
    """All scores at one value of the axis, and of the second axis."""

    value: Any
    second: Any
    draws: int
    points: list[Point | None]
    """Per score; None where there is nothing to measure."""


@dataclass(frozen=True)
class Compared:
    """One comparison."""

    origin: Path | None
    """The sweep that it is about; None for runs of no sweep."""
    comparison: Comparison
    scores: tuple[Score, ...]
    charts: list[Chart]
    numbers: list[NumberRow]
    n_numbers: int


@dataclass(frozen=True)
class AllCompared:
    """The first comparisons of a task."""

    shown: list[Compared]
    total: int


def compared(group: Group) -> AllCompared:
    """The comparisons of a task, sweep by sweep; none if nothing was swept, or if the task has no scores."""
    scores = MEASURES[group.task].scores if group.task in MEASURES else ()
    parts = [part for part in group.by_sweep() if scores and any(result.rows for result in part.results)]
    comparisons = [(part.origin, comparison) for part in parts for comparison in compare(part)]
    found = []
    for place, (origin, comparison) in enumerate(comparisons[:MOST_COMPARISONS]):
        drawn = [
            _chart(comparison, number, score, f"{group.task}{place}-{number}") for number, score in enumerate(scores)
        ]
        numbers = _numbers(comparison)
        found.append(Compared(origin, comparison, scores, drawn, numbers[:_MOST_NUMBERS], len(numbers)))
    return AllCompared(found, len(comparisons))


def _chart(comparison: Comparison, number: int, score: Score, name: str) -> Chart:
    points = [point for line in comparison.lines[number] for point in line.points]
    means = {point.mean for point in points}
    if len(means) <= 1 and not any(point.spread for point in points):
        return Chart(None, score.name, score.meaning, means.pop() if means else None)
    title = f"{score.name} against {comparison.axis.name}"
    svg = svg_of(lambda: score_chart(comparison, number, score), name, title)
    return Chart(svg, score.name, score.meaning, None)


def _numbers(comparison: Comparison) -> list[NumberRow]:
    rows = []
    for lines in zip(*comparison.lines, strict=True):  # the lines of all scores at one value of the second axis
        by_value = [{point.value: point for point in line.points} for line in lines]
        for value in comparison.axis.values:
            points = [each.get(value) for each in by_value]
            draws = max((point.draws for point in points if point is not None), default=0)
            if draws:
                rows.append(NumberRow(value, lines[0].value, draws, points))
    return rows
