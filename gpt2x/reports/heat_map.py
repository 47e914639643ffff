"""A picture of where a subject is wrong: parity.png, and the same drawing for notebooks and for a report."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2x.config.tasks.validate import Stage
from gpt2x.parity.checks import Metric, Mode, Status
from gpt2x.parity.rows import ParityRow, parity_row
from gpt2x.paths import write_whole

if TYPE_CHECKING:  # a report reads tables, and needs no torch
    from matplotlib.axes import Axes
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure
    from numpy import ndarray

    from gpt2x.parity.validation import Validation

_COLUMNS = ("ln_1", "attn.c_attn", "attn.c_proj", "attn", "ln_2", "mlp.c_fc", "mlp.act", "mlp.c_proj", "mlp", "block")
_ENDS = ("wte", "wpe", "drop", "ln_f", "lm_head")
_LEAST, _MOST = 1e-17, 1.0  # the range of the colours; float64 does not resolve smaller differences
_LIGHT = 0.6  # the part of the range of the colours from which on black is easier to read on them than white


def has_heat_map(v: "Validation") -> bool:
    """Whether there is anything to draw."""
    return any(row.value is not None for row in isolated_rows([parity_row(check) for check in v.checks]))


def save_heat_map(v: "Validation", path: Path) -> None:
    """Writes the heat map as a PNG. Raises UserError if the file cannot be written."""
    write_whole(path, lambda temporary: heat_map(v).savefig(temporary, format="png"))


def heat_map(v: "Validation") -> "Figure":
    """The drawing of a validation."""
    return draw_heat_map(v.subject, [parity_row(check) for check in v.checks], v.record.facts.exact)


def isolated_rows(rows: Sequence[ParityRow]) -> list[ParityRow]:
    """The rows of parity.csv that the heat map shows: each module on the reference's input."""
    asked = (Stage.LAYERS, Mode.ISOLATED, Metric.RELATIVE_DIFFERENCE)
    return [row for row in rows if (row.stage, row.mode, row.metric) == asked]


def draw_heat_map(subject: str, rows: Sequence[ParityRow], dtype: str | None) -> "Figure":
    """A drawing of each module's isolated error: one row per layer, one column per module, a last row for the rest.

    `rows` are those of parity.csv, with at least one of isolated_rows; `dtype` is the one that both models ran in.
    """
    import matplotlib as mpl
    import numpy as np
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    errors = {row.site: row for row in isolated_rows(rows)}
    tolerance = max((row.tolerance for row in errors.values() if row.tolerance is not None), default=_MOST)
    n_layer = 1 + max((int(found[1]) for site in errors if (found := re.match(r"h\.(\d+)", site))), default=0)
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
        _write_errors(axes, values, tolerance, norm)
    label = "difference / largest reference value" + (f", {dtype}" if dtype else "")
    bar = figure.colorbar(image, ax=[top, bottom], label=label)
    bar.ax.axhline(tolerance, color="red")
    title = f"{subject}: each module on the reference's input (number: above {tolerance:g}; grey: not compared)"
    figure.suptitle(title, fontsize=10, parse_math=False)  # a path may contain dollar signs
    return figure


def _write_errors(axes: "Axes", values: "ndarray", tolerance: float, norm: "LogNorm") -> None:
    """Writes each value above the tolerance into its cell, in a dark or a light ink: red is hard to see on viridis."""
    import numpy as np

    for (i, j), value in np.ndenumerate(values):
        if value > tolerance:
            ink = "0.1" if norm(value) > _LIGHT else "white"
            axes.text(j, i, f"{value:.0e}", ha="center", va="center", fontsize=7, color=ink)


def _worst(rows: list[ParityRow]) -> float:
    """The largest value, NaN for no values. A value that is not finite, or of another shape, counts as the largest."""
    unmeasured = (Status.NONFINITE, Status.SHAPE_MISMATCH)
    values = [_MOST if row.status in unmeasured else row.value for row in rows]
    return max((value for value in values if value is not None), default=float("nan"))
