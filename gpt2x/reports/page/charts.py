"""The drawings of a report's page: scores against settings, training curves, and the bars of benchmarks."""

import math
import textwrap
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gpt2x.benchmark.rows import BenchmarkRow
from gpt2x.reports.bars import draw_bars
from gpt2x.reports.page.comparison import Axis, Comparison
from gpt2x.reports.page.measures import Score
from gpt2x.reports.page.printable import printable
from gpt2x.reports.page.study import label
from gpt2x.reports.page.svg import COLOURS, MARKERS
from gpt2x.training.rows import TrainRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE = (3.7, 2.8)  # inches; the SVG has 72 units per inch
_LEAST_HEIGHT = 2.1  # inches of the axes alone
_LABEL = 18  # characters: longer values are cut off in a chart
_MOST_LABELS = 16  # of an axis without numbers
_LETTER = 0.7  # width of a letter, as a share of the font size: that of capitals, as the reader's font is not known
_HANDLE = 30.0  # points that an entry of a legend takes apart from its letters
_MANY_DECADES = 100.0  # from this ratio between the largest and the smallest value on, the axis is logarithmic


def score_chart(comparison: Comparison, number: int, score: Score) -> "Figure":
    """One score against one setting: a point per value, a line per value of the second axis."""
    axis, second = comparison.axis, comparison.second
    figure, axes = _figure()
    places = {value: value if axis.is_numeric else i for i, value in enumerate(axis.values)}
    for i, line in enumerate(comparison.lines[number]):
        shift = 0.0 if axis.is_numeric else (i - (len(comparison.lines[number]) - 1) / 2) * 0.08
        axes.errorbar(
            [places[point.value] + shift for point in line.points],
            [point.mean for point in line.points],
            yerr=[point.spread or 0.0 for point in line.points],
            color=COLOURS[i % len(COLOURS)],
            marker=MARKERS[i % len(MARKERS)],
            markersize=4.5,
            linewidth=1.4 if axis.is_numeric else 0.0,  # between values without an order, there is nothing to follow
            elinewidth=1.0,
            capsize=2.5,
            label=_entry(short(line.value)) if second else None,
        )
    _scale(axes, axis)
    axes.set_xlabel(axis.name, parse_math=False)
    axes.set_ylabel(score.name)
    if second:
        _legend(figure, second.name)
    return _with_room(figure, axes)


def training_chart(settings: str, curves: Sequence[tuple[str, list[TrainRow]]]) -> "Figure":
    """Loss against steps: for each run, the validation loss as a line, and the training loss as dashes.

    `settings` names what differs between the runs, and each curve comes with its values of them.
    """
    figure, axes = _figure(wide=True)
    for i, (name, rows) in enumerate(curves):
        steps, colour = [row.step for row in rows], COLOURS[i % len(COLOURS)]
        marker = MARKERS[i % len(MARKERS)] if len(rows) <= _MOST_LABELS else None
        entry = _entry(name) if settings else "validation"
        axes.plot(steps, [row.val_loss for row in rows], color=colour, marker=marker, markersize=4, label=entry)
        axes.plot(steps, [row.train_loss for row in rows], color=colour, linestyle="dashed", linewidth=1.0)
    axes.set_xlabel("step")
    axes.set_ylabel("loss in nats per token")
    _legend(figure, settings)
    return _with_room(figure, axes)


def benchmark_chart(rows: Sequence[BenchmarkRow]) -> "Figure":
    """The bars of one benchmark."""
    figure, axes = _figure(wide=True)
    draw_bars(axes, rows)
    axes.grid(visible=False, axis="x")
    _legend(figure)
    return _with_room(figure, axes)


def short(value: Any) -> str:
    """The value of a setting in a chart: one line, at most 18 characters."""
    text = printable(label(value).replace("\n", "⏎ "))
    return text if len(text) <= _LABEL else text[: _LABEL - 1] + "…"


def _figure(wide: bool = False) -> tuple["Figure", "Axes"]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2 * _SIZE[0], 1.15 * _SIZE[1]) if wide else _SIZE, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#7F7F7F", alpha=0.25)
    axes.set_axisbelow(True)
    return figure, axes


def _scale(axes: "Axes", axis: Axis) -> None:
    """Ticks at the values of the setting, on a logarithmic axis if they are of different sizes.

    Where the labels of numbers would overlap, matplotlib chooses the ticks. Other labels are tilted instead.
    """
    if axis.is_numeric:
        least, most = axis.values[0], axis.values[-1]
        is_log = least > 0 and most / least >= _MANY_DECADES
        if is_log:
            axes.set_xscale("log")
        names = [label(value) for value in axis.values]
        if _fit([math.log(value) if is_log else value for value in axis.values], names):
            axes.set_xticks(axis.values, names, parse_math=False)
            axes.set_xticks([], minor=True)
        return
    step = -(-len(axis.values) // _MOST_LABELS)
    ticks = range(0, len(axis.values), step)
    names = [short(axis.values[i]) for i in ticks]
    tilt: Any = {} if _fit(ticks, names) else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(ticks, names, parse_math=False, **tilt)
    axes.set_xlim(-0.5, len(axis.values) - 0.5)


def _fit(places: Sequence[float], names: Sequence[str]) -> bool:
    """Whether labels at these places of the horizontal axis are apart from each other."""
    unit = 0.65 * 72 * _SIZE[0] / (places[-1] - places[0])  # points; the rest is for the vertical axis and the margins
    half = [_width(name) / 2 for name in names]
    return all(unit * (places[i] - places[i - 1]) > half[i - 1] + half[i] for i in range(1, len(places)))


def _width(text: str, size: float = 9.0) -> float:
    """About the width in points. Letters of Chinese, Japanese and Korean are twice as wide as others."""
    return _LETTER * size * sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _entry(name: str) -> str:
    """A name for a legend. matplotlib leaves out those that are empty or start with an underscore."""
    return f" {name}"


def _legend(figure: "Figure", title: str = "") -> None:
    """Above the axes, where it hides no point, in as many columns as the figure has room for."""
    handles, names = figure.axes[0].get_legend_handles_labels()
    room, letter = 72 * figure.get_figwidth(), _width("x", 8.0)
    names = [textwrap.fill(name, int((room - _HANDLE) / letter)) for name in names]
    widest = max((_width(line, 8.0) for name in names for line in name.split("\n")), default=0.0)
    legend = figure.legend(
        handles,
        names,
        title=textwrap.fill(title, int(room / letter)),
        title_fontsize=8,
        loc="outside upper center",
        ncols=max(1, int(room / (widest + _HANDLE))),
        handlelength=1.6,
        columnspacing=1.2,
    )
    for text in (legend.get_title(), *legend.get_texts()):
        text.set_parse_math(False)


def _with_room(figure: "Figure", axes: "Axes") -> "Figure":
    """The figure, made taller where the legend and tilted labels leave too little for the axes and their y label."""
    figure.draw_without_rendering()  # this lays it out
    height, name = (each.get_window_extent().height / figure.dpi for each in (axes, axes.yaxis.label))
    figure.set_figheight(figure.get_figheight() + max(0.0, max(_LEAST_HEIGHT, name) - height))
    return figure
