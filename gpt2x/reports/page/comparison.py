"""The scores of a task against each swept setting: means, and their spread over seeds. Nothing is drawn here."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from statistics import fmean, stdev
from typing import Any

from gpt2x.reports.page.measures import MEASURES, Ratio
from gpt2x.reports.page.study import Group, value_of
from gpt2x.runs.collect import short_names

SEED = "seed"
_PROMPTS = ("prompt", "prompt_file", "prompts_file")  # they come last: readers ask about the other settings first
MOST_LINES = 7
"""A setting with more values is not drawn as the lines of a chart: they could not be told apart."""


@dataclass(frozen=True)
class Axis:
    """A swept setting."""

    key: str
    name: str
    values: tuple[Any, ...]
    """Numbers in their order, then all other values as they were first seen."""

    @property
    def is_numeric(self) -> bool:
        return all(_is_number(value) for value in self.values)


@dataclass(frozen=True)
class Point:
    """A score at one value of an axis."""

    value: Any
    mean: float
    """Mean over the draws of the score of each draw."""
    spread: float | None
    """Standard deviation over the draws; None for one draw."""
    draws: int


@dataclass(frozen=True)
class Line:
    """The points of one value of the second axis, or of all runs."""

    value: Any
    points: list[Point]


@dataclass(frozen=True)
class Comparison:
    """All scores of a task against one axis."""

    axis: Axis
    second: Axis | None
    averaged: list[str]
    """Names of the other swept settings, over whose values the scores are taken together."""
    lines: list[list[Line]]
    """Per score."""
    draws_are: str
    """What the spread is over: seeds or samples."""
    is_complete: bool
    """Whether every combination of the swept values has results; if not, points are over different combinations."""

    @property
    def has_spread(self) -> bool:
        """Whether any point is a mean over several draws."""
        return any(point.draws > 1 for lines in self.lines for line in lines for point in line.points)


@dataclass(frozen=True)
class _Observation:
    """A row of a table."""

    settings: dict[str, Any]
    draw: Any
    ratios: tuple[Ratio, ...]


def compare(group: Group) -> list[Comparison]:
    """One comparison per swept setting apart from the seed, in the order of the command line, the prompt last."""
    seeds = {value_of(result.run.job, SEED) for result in group.results}
    observations = list(_observations(group, by_seed=len(seeds) > 1))
    names = short_names(group.swept)
    axes = [_axis(key, names[key], observations) for key in group.swept if key != SEED]
    axes = sorted((axis for axis in axes if len(axis.values) > 1), key=lambda axis: axis.key in _PROMPTS)
    combinations = {tuple(each.settings.values()) for each in observations}
    is_complete = len(combinations) == prod(len({each[i] for each in combinations}) for i in range(len(group.swept)))
    draws_are = "seeds" if len(seeds) > 1 else "samples"
    return [_comparison(axis, axes, observations, draws_are, is_complete) for axis in axes]


def _observations(group: Group, by_seed: bool) -> Iterator[_Observation]:
    """All rows; a draw is a seed or, if all runs have the same one, a sample."""
    measured = MEASURES[group.task]
    for result in group.results:
        job = result.run.job
        settings, seed = {key: value_of(job, key) for key in group.swept}, value_of(job, SEED)
        for row in measured.select(result.rows):
            draw = seed if by_seed else getattr(row, "sample", 0)
            yield _Observation(settings, draw, tuple(score.of(row) for score in measured.scores))


def _axis(key: str, name: str, observations: Sequence[_Observation]) -> Axis:
    values = list(dict.fromkeys(each.settings[key] for each in observations))
    numbers = sorted(value for value in values if _is_number(value))
    return Axis(key, name, (*numbers, *(value for value in values if not _is_number(value))))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _comparison(
    axis: Axis, axes: list[Axis], observations: Sequence[_Observation], draws_are: str, is_complete: bool
) -> Comparison:
    others = [each for each in axes if each is not axis]
    second = next((each for each in others if len(each.values) <= MOST_LINES), None)
    n_scores = len(observations[0].ratios)
    return Comparison(
        axis,
        second,
        [each.name for each in others if each is not second],
        [_lines(axis, second, observations, score) for score in range(n_scores)],
        draws_are,
        is_complete,
    )


def _lines(axis: Axis, second: Axis | None, observations: Sequence[_Observation], score: int) -> list[Line]:
    """The lines of one score, which is computed for each draw on its own."""
    sums: defaultdict[tuple[Any, Any], defaultdict[Any, list[float]]]
    sums = defaultdict(lambda: defaultdict(lambda: [0.0, 0.0]))
    for each in observations:
        place = (each.settings[second.key] if second else None, each.settings[axis.key])
        total = sums[place][each.draw]
        total[0] += each.ratios[score][0]
        total[1] += each.ratios[score][1]
    lines = []
    for value in second.values if second else (None,):
        points = [_point(x, sums[value, x].values()) for x in axis.values if (value, x) in sums]
        lines.append(Line(value, [point for point in points if point is not None]))
    return lines


def _point(value: Any, sums: Any) -> Point | None:
    """None if no draw has anything to measure, such as pairs of words in texts of one word."""
    scores = [numerator / denominator for numerator, denominator in sums if denominator]
    if not scores:
        return None
    return Point(value, fmean(scores), stdev(scores) if len(scores) > 1 else None, len(scores))
