"""parity.png: a picture of where a subject is wrong."""

from pathlib import Path
from typing import TYPE_CHECKING

from gpt2x.config.tasks.validate import Stage
from gpt2x.parity.checks import Check, Metric, Mode, Status
from gpt2x.parity.validation import Validation
from gpt2x.paths import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = ("ln_1", "attn.c_attn", "attn.c_proj", "attn", "ln_2", "mlp.c_fc", "mlp.act", "mlp.c_proj", "mlp", "block")
_ENDS = ("wte", "wpe", "drop", "ln_f", "lm_head")
_LEAST, _MOST = 1e-17, 1.0  # the range of the colours; float64 does not resolve smaller differences


def has_heat_map(v: Validation) -> bool:
    """Whether there is anything to draw."""
    return any(check.stage is Stage.LAYERS and check.value is not None for check in v.checks)


def save_heat_map(v: Validation, path: Path) -> None:
    """Writes the heat map as a PNG. Raises UserError if the file cannot be written."""
    write_whole(path, lambda temporary: heat_map(v).savefig(temporary, format="png"))


def heat_map(v: Validation) -> "Figure":
    """A drawing of each module's isolated error: one row per layer, one column per module, a last row for the rest."""
    import matplotlib as mpl
    import numpy as np
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    errors = {
        check.site: check
        for check in v.checks
        if check.stage is Stage.LAYERS and check.mode is Mode.ISOLATED and check.metric is Metric.RELATIVE_DIFFERENCE
    }
    n_layer = v.record.facts.architecture["n_layer"]
    layers = np.full((n_layer, len(_COLUMNS)), np.nan)
    for i in range(n_layer):
        for j, column in enumerate(_COLUMNS):
            parts = [f"h.{i}" if column == "block" else f"h.{i}.{column}"]
            parts += [f"h.{i}.{column}.{part}" for part in "qkv"]
            layers[i, j] = _worst([errors[site] for site in parts if site in errors])
    others = np.array([[_worst([errors[site]] if site in errors else []) for site in _ENDS]])

    figure = Figure(figsize=(9, 2.6 + 0.3 * n_layer), dpi=120, layout="constrained")
    top, bottom = figure.subplots(2, 1, height_ratios=(n_layer, 1.4))
    colours = mpl.colormaps["viridis"].with_extremes(bad="lightgrey")
    norm = LogNorm(_LEAST, _MOST)
    for axes, values, names, labels in (
        (top, layers, _COLUMNS, [f"h.{i}" for i in range(n_layer)]),
        (bottom, others, _ENDS, ["rest"]),
    ):
        image = axes.imshow(np.clip(values, _LEAST, _MOST), cmap=colours, norm=norm, aspect="auto")
        axes.set_xticks(range(len(names)), names, fontsize=8)
        axes.set_yticks(range(len(labels)), labels)
        for (i, j), value in np.ndenumerate(values):
            if value > v.tolerance:
                axes.text(j, i, f"{value:.0e}", ha="center", va="center", fontsize=7, color="red")
    label = f"difference / largest reference value, {v.record.facts.exact}"
    bar = figure.colorbar(image, ax=[top, bottom], label=label)
    bar.ax.axhline(v.tolerance, color="red")
    title = f"{v.subject}: each module on the reference's input (red: above {v.tolerance:g}; grey: not compared)"
    figure.suptitle(title, fontsize=10, parse_math=False)  # a path may contain dollar signs
    return figure


def _worst(checks: list[Check]) -> float:
    """The largest value, NaN for no values. A value that is not finite, or of another shape, counts as the largest."""
    unmeasured = (Status.NONFINITE, Status.SHAPE_MISMATCH)
    values = [_MOST if check.status in unmeasured else check.value for check in checks]
    return max((value for value in values if value is not None), default=float("nan"))
