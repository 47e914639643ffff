"""benchmark.png: the time of a step, and its lower bounds."""

from pathlib import Path

from gpt2x.benchmark.benchmark import Benchmark
from gpt2x.paths import write_whole
from gpt2x.reports.benchmark import title_of

_GROUP = 0.8  # width of the bars of one batch size; the distance to the next batch size is 1


def draw(result: Benchmark, path: Path) -> None:
    """Median milliseconds per step, with whiskers from p10 to p90: one group per batch size, one bar per variant.

    Raises UserError if the file cannot be written.
    """
    from matplotlib.figure import Figure

    rows, floors = result.rows, result.floors

    batches = list(dict.fromkeys(row.batch for row in rows))
    names = list(dict.fromkeys((row.engine, row.dtype) for row in rows))
    figure = Figure(figsize=(max(6.4, 1.2 + 0.45 * len(rows)), 4.8), layout="constrained")
    axes = figure.subplots()
    width = _GROUP / len(names)
    for i, name in enumerate(names):
        bars = [row for row in rows if (row.engine, row.dtype) == name]
        centres = [batches.index(row.batch) - _GROUP / 2 + (i + 0.5) * width for row in bars]
        medians = [row.ms_per_step for row in bars]
        down = [row.ms_per_step - row.ms_per_step_p10 for row in bars]
        up = [row.ms_per_step_p90 - row.ms_per_step for row in bars]
        drawn = axes.bar(centres, medians, 0.9 * width, yerr=(down, up), capsize=3, color=f"C{i}", label=" ".join(name))
        axes.bar_label(drawn, fmt="%.3g", fontsize=7, padding=2)
        lefts, rights = ([centre + side * width / 2 for centre in centres] for side in (-1, 1))
        least = [floors.memory_ms(row.dtype) for row in bars]
        axes.hlines(least, lefts, rights, colors="black", label="" if i else "floor: weights read once")
        if name == names[0]:
            least = [floors.arithmetic_ms(batch) for batch in batches]
            lefts, rights = ([x + side * _GROUP / 2 for x in range(len(batches))] for side in (-1, 1))
            axes.hlines(least, lefts, rights, colors="black", linestyles="dotted", label="floor: arithmetic, float32")
    axes.set_xticks(range(len(batches)), [f"batch {batch}" for batch in batches])
    axes.set_ylabel("ms per step (one token for every row)")
    axes.set_title(title_of(result), fontsize=8)
    axes.legend(fontsize=8, loc="upper left")  # the smallest batches, with the lowest bars, are on the left
    write_whole(path, lambda temporary: figure.savefig(temporary, dpi=120, format="png"))
