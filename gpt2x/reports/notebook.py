"""A validation as the Python API returns it: as text, on a rich console, and in a notebook."""

import base64
import io
from html import escape
from typing import TYPE_CHECKING

from rich.console import Group

from gpt2x.errors import UserError
from gpt2x.parity import validation
from gpt2x.parity.rows import CauseRow, ParityRow, parity_row
from gpt2x.reports.heat_map import has_heat_map, heat_map
from gpt2x.reports.validation import answers, causes, headline, tables, verdict
from gpt2x.runs.tables import to_frame
from gpt2x.visible import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


class Validation:
    """What gpt2x.validate found. A notebook shows the verdict, the place, the causes and the heat map."""

    def __init__(self, found: validation.Validation) -> None:
        self._found = found

    @property
    def passed(self) -> bool:
        """Whether the model computes what the reference computes, as far as it was asked."""
        return self._found.passed

    @property
    def first_divergence(self) -> str:
        """The first wrong module, `input of` a module that receives wrong values, or `stage: site`; '' if it passed."""
        return self._found.first_divergence

    @property
    def probable_cause(self) -> str:
        """The mistake that reproduces the divergence, or 'unknown' with the numbers; '' if it passed."""
        return self._found.probable_cause

    @property
    def causes(self) -> "DataFrame":
        """One row per cause, all of them, in the order in which they were found: the columns of causes.csv."""
        return to_frame(CauseRow, self._found.causes)

    @property
    def checks(self) -> "DataFrame":
        """One row per comparison: the columns of parity.csv."""
        return to_frame(ParityRow, map(parity_row, self._found.checks))

    def heat_map(self) -> "Figure":
        """A matplotlib figure of each module's error on the reference's input.

        The unit is the reference's largest value. Raises UserError without the stage layers, which measures them.
        """
        if not has_heat_map(self._found):
            raise UserError("heat_map: no module was compared; add 'layers' to stages (a recording has no heat map)")
        return heat_map(self._found)

    def __repr__(self) -> str:
        return headline(self._found).plain

    def __rich__(self) -> Group:
        return Group(headline(self._found), *tables(self._found), *answers(self._found))

    def _repr_html_(self) -> str:
        """For notebooks. All text is escaped, as it may come from the model that was validated."""
        v = self._found
        word, _, rest = verdict(v).plain.partition("  ")
        colour = "green" if v.passed else "firebrick"
        facts = {"model": v.subject, "place": v.first_divergence, "causes": "\n".join(causes(v))}
        rows = "".join(
            f'<tr><th style="text-align: left">{escape(name)}</th><td style="text-align: left">{_lines(fact)}</td></tr>'
            for name, fact in facts.items()
            if fact
        )
        lines = "<br>".join(escape(line.plain) for line in answers(v))
        parts = [
            f'<p><strong style="color: {colour}">{word}</strong> {escape(rest)}</p>',
            f"<table>{rows}</table>",
            f"<p>{lines}</p>",
        ]
        if has_heat_map(v):
            alternative = escape(f"The error of each module of {v.subject}")
            parts.append(f'<img src="data:image/png;base64,{_png(heat_map(v))}" alt="{alternative}">')
        return "\n".join(parts)


def _lines(text: str) -> str:
    return "<br>".join(map(escape, visible(text).splitlines()))


def _png(figure: "Figure") -> str:
    """The figure as PNG in base64."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return base64.b64encode(stream.getvalue()).decode()
