"""The drawings of a report's page: scores against settings, training curves, and the bars of benchmarks."""

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
_LABEL = 18  # characters: longer values are cut off in a chart
_MOST_LABELS = 16  # of an axis without numbers
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
            label=f"{second.name} {short(line.value)}" if second else None,
        )
    _scale(axes, axis)
    axes.set_xlabel(axis.name, parse_math=False)
    axes.set_ylabel(score.name)
    if second:
        _legend(figure)
    return figure


def training_chart(curves: Sequence[tuple[str, list[TrainRow]]]) -> "Figure":
    """Loss against steps: for each run, the validation loss as a line, and the training loss as dashes."""
    figure, axes = _figure(wide=True)
    for i, (name, rows) in enumerate(curves):
        steps, colour = [row.step for row in rows], COLOURS[i % len(COLOURS)]
        marker = MARKERS[i % len(MARKERS)] if len(rows) <= _MOST_LABELS else None
        axes.plot(
            steps, [row.val_loss for row in rows], color=colour, marker=marker, markersize=4, label=name or "validation"
        )
        axes.plot(steps, [row.train_loss for row in rows], color=colour, linestyle="dashed", linewidth=1.0)
    axes.set_xlabel("step")
    axes.set_ylabel("loss in nats per token")
    _legend(figure)
    return figure


def benchmark_chart(rows: Sequence[BenchmarkRow]) -> "Figure":
    """The bars of one benchmark."""
    figure, axes = _figure(wide=True)
    draw_bars(axes, rows, COLOURS)
    axes.grid(visible=False, axis="x")
    _legend(figure)
    return figure


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
    """Ticks at the values of the setting, on a logarithmic axis if they are of different sizes."""
    if axis.is_numeric:
        least, most = axis.values[0], axis.values[-1]
        if least > 0 and most / least >= _MANY_DECADES:
            axes.set_xscale("log")
        if len(axis.values) <= 8:
            axes.set_xticks(axis.values, [label(value) for value in axis.values], parse_math=False)
            axes.set_xticks([], minor=True)
        return
    step = -(-len(axis.values) // _MOST_LABELS)
    ticks = range(0, len(axis.values), step)
    names = [short(axis.values[i]) for i in ticks]
    tilt: Any = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) > 5 else {}
    axes.set_xticks(ticks, names, parse_math=False, **tilt)
    axes.set_xlim(-0.5, len(axis.values) - 0.5)


def _legend(figure: "Figure") -> None:
    """Above the axes, where it hides no point."""
    legend = figure.legend(loc="outside upper center", ncols=3, handlelength=1.6, columnspacing=1.2)
    for text in legend.get_texts():
        text.set_parse_math(False)
