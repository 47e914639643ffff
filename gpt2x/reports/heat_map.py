"""parity.png: a picture of where a subject is wrong."""

from pathlib import Path

from gpt2x.parity.comparison import Comparison
from gpt2x.parity.rows import ParityRow
from gpt2x.paths import write_whole

_COLUMNS = ("ln_1", "attn.c_attn", "attn.c_proj", "attn", "ln_2", "mlp.c_fc", "mlp.act", "mlp.c_proj", "mlp", "block")
_LEAST, _MOST = 1e-17, 1.0  # of the colours; float64 cannot tell less apart


def heat_map(c: Comparison, rows: list[ParityRow], path: Path) -> None:
    """Draws each module's isolated error: a row a layer, a column a module, and the rest in a row of its own."""
    import matplotlib as mpl
    import numpy as np
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    errors = {
        row.site: row
        for row in rows
        if row.stage == "layers" and row.mode == "isolated" and row.metric == "relative_difference"
    }
    n_layer = c.record.facts.architecture["n_layer"]
    layers = np.full((n_layer, len(_COLUMNS)), np.nan)
    for i in range(n_layer):
        for j, column in enumerate(_COLUMNS):
            parts = [f"h.{i}" if column == "block" else f"h.{i}.{column}"]
            parts += [f"h.{i}.{column}.{part}" for part in "qkv"]
            layers[i, j] = _worst([errors[site] for site in parts if site in errors])
    ends = ("wte", "wpe", "drop", "ln_f", "lm_head")
    others = np.array([[_worst([errors[site]] if site in errors else []) for site in ends]])

    figure = Figure(figsize=(9, 2.6 + 0.3 * n_layer), layout="constrained")
    top, bottom = figure.subplots(2, 1, height_ratios=(n_layer, 1.4))
    colours = mpl.colormaps["viridis"].with_extremes(bad="lightgrey")
    norm = LogNorm(_LEAST, _MOST)
    for axes, values, names, labels in (
        (top, layers, _COLUMNS, [f"h.{i}" for i in range(n_layer)]),
        (bottom, others, ends, ["rest"]),
    ):
        image = axes.imshow(np.clip(values, _LEAST, _MOST), cmap=colours, norm=norm, aspect="auto")
        axes.set_xticks(range(len(names)), names, fontsize=8)
        axes.set_yticks(range(len(labels)), labels)
        for (i, j), value in np.ndenumerate(values):
            if value > c.bar:
                axes.text(j, i, f"{value:.0e}", ha="center", va="center", fontsize=7, color="red")
    bar = figure.colorbar(
        image, ax=[top, bottom], label=f"difference / largest reference value, {c.record.facts.exact}"
    )
    bar.ax.axhline(c.bar, color="red")
    title = f"{c.exact.name}: each module on the reference's input (red: above {c.bar:g}; grey: not compared)"
    figure.suptitle(title, fontsize=10)
    write_whole(path, lambda temporary: figure.savefig(temporary, dpi=120, format="png"))


def _worst(rows: list[ParityRow]) -> float:
    """The largest value; of what is not a number or of another shape, the largest there is; NaN of nothing."""
    values = [_MOST if row.status in ("nonfinite", "shape_mismatch") else row.value for row in rows]
    return max((value for value in values if value is not None), default=float("nan"))
