"""benchmark.png: the time of a step, and its lower bounds."""

from pathlib import Path

from gpt2x.benchmark.benchmark import Benchmark
from gpt2x.paths import write_whole
from gpt2x.reports.bars import GROUP, bars_of, batches_of, draw_bars
from gpt2x.reports.benchmark import title_of


def draw(result: Benchmark, path: Path) -> None:
    """Median milliseconds per step, with whiskers from p10 to p90: one group per batch size, one bar per variant.

    Raises UserError if the file cannot be written.
    """
    from matplotlib.figure import Figure

    rows, floors = result.rows, result.floors

    batches = batches_of(rows)
    figure = Figure(figsize=(max(6.4, 1.2 + 0.45 * len(rows)), 4.8), layout="constrained")
    axes = figure.subplots()
    draw_bars(axes, rows)
    for i, bars in enumerate(bars_of(rows)):
        lefts, rights = ([centre + side * bars.width / 2 for centre in bars.centres] for side in (-1, 1))
        least = [floors.memory_ms(row.dtype) for row in bars.rows]
        axes.hlines(least, lefts, rights, colors="black", label="" if i else "floor: weights read once")
    least = [floors.arithmetic_ms(batch) for batch in batches]
    lefts, rights = ([x + side * GROUP / 2 for x in range(len(batches))] for side in (-1, 1))
    axes.hlines(least, lefts, rights, colors="black", linestyles="dotted", label="floor: arithmetic, float32")
    axes.set_title(title_of(result), fontsize=8)
    axes.legend(fontsize=8, loc="upper left")  # the smallest batches, with the lowest bars, are on the left
    write_whole(path, lambda temporary: figure.savefig(temporary, dpi=120, format="png"))
