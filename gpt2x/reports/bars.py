"""The bars of a benchmark, from the rows of benchmark.csv alone: for benchmark.png and for the page of a report."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpt2x.benchmark.rows import BenchmarkRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GROUP = 0.8
"""The width of the bars of one batch size; the distance to the next batch size is 1."""


@dataclass(frozen=True)
class Bars:
    """The bars of one engine and dtype: one per batch size, in the order of the rows."""

    name: tuple[str, str]
    """Engine and dtype."""
    rows: list[BenchmarkRow]
    centres: list[float]
    width: float


def bars_of(rows: Sequence[BenchmarkRow]) -> list[Bars]:
    """Where the bars stand: one group per batch size, one bar per engine and dtype."""
    batches = batches_of(rows)
    names = list(dict.fromkeys((row.engine, row.dtype) for row in rows))
    width = GROUP / len(names)
    found = []
    for i, name in enumerate(names):
        own = [row for row in rows if (row.engine, row.dtype) == name]
        centres = [batches.index(row.batch) - GROUP / 2 + (i + 0.5) * width for row in own]
        found.append(Bars(name, own, centres, width))
    return found


def batches_of(rows: Sequence[BenchmarkRow]) -> list[int]:
    """The batch sizes, in the order of the rows."""
    return list(dict.fromkeys(row.batch for row in rows))


def draw_bars(axes: "Axes", rows: Sequence[BenchmarkRow], colours: Sequence[str]) -> None:
    """Median milliseconds per step, with whiskers from p10 to p90. The colours repeat where there are more bars."""
    for i, bars in enumerate(bars_of(rows)):
        medians = [row.ms_per_step for row in bars.rows]
        down = [row.ms_per_step - row.ms_per_step_p10 for row in bars.rows]
        up = [row.ms_per_step_p90 - row.ms_per_step for row in bars.rows]
        colour, label = colours[i % len(colours)], " ".join(bars.name)
        drawn = axes.bar(bars.centres, medians, 0.9 * bars.width, yerr=(down, up), capsize=3, color=colour, label=label)
        axes.bar_label(drawn, fmt="%.3g", fontsize=7, padding=2)
    batches = batches_of(rows)
    axes.set_xticks(range(len(batches)), [f"batch {batch}" for batch in batches])
    axes.set_ylabel("ms per step (one token for every row)")
