"""The bars of a benchmark, from the rows of benchmark.csv alone: for benchmark.png and for the page of a report."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpt2x.benchmark.rows import BenchmarkRow
from gpt2x.reports.page.svg import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PATTERNS = ("", "///", "xxx", "...")
"""One per dtype."""
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


def draw_bars(axes: "Axes", rows: Sequence[BenchmarkRow]) -> None:
    """Median milliseconds per step, with whiskers from p10 to p90. An engine has a colour, a dtype a pattern."""
    engines, dtypes = (list(dict.fromkeys(getattr(row, column) for row in rows)) for column in ("engine", "dtype"))
    for bars in bars_of(rows):
        engine, dtype = bars.name
        medians = [row.ms_per_step for row in bars.rows]
        down = [row.ms_per_step - row.ms_per_step_p10 for row in bars.rows]
        up = [row.ms_per_step_p90 - row.ms_per_step for row in bars.rows]
        drawn = axes.bar(
            bars.centres,
            medians,
            0.9 * bars.width,
            yerr=(down, up),
            capsize=3,
            color=COLOURS[engines.index(engine)],
            hatch=_PATTERNS[dtypes.index(dtype)],
            edgecolor="white",
            linewidth=0,
            label=f"{engine} {dtype}",
        )
        axes.bar_label(drawn, fmt="%.3g", fontsize=7, padding=2)
    batches = batches_of(rows)
    axes.set_xticks(range(len(batches)), [f"batch {batch}" for batch in batches])
    axes.set_ylabel("ms per step (one token for every row)")
