"""The validations of a report: verdict, place and cause from summary.csv, and the heat map from parity.csv."""

from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from gpt2x.parity.rows import ParityRow, SummaryRow
from gpt2x.reports.heat_map import draw_heat_map, isolated_rows
from gpt2x.reports.page.study import Group, Result, label, read_table, value_of
from gpt2x.reports.page.svg import svg_of
from gpt2x.runs.collect import short_names

MOST_MAPS = 12
"""Heat maps on a page; those of failed validations come first."""
_SUBJECT = 40  # characters of its name that the title of the drawing has room for


@dataclass(frozen=True)
class ShownValidation:
    """One validation."""

    folder: Path
    settings: list[str]
    summary: SummaryRow
    heat_map: Markup | None

    @property
    def passed(self) -> bool:
        return self.summary.verdict == "pass"


@dataclass(frozen=True)
class Validations:
    """All validations, those that failed first."""

    settings: list[str]
    """Names of the swept settings."""
    shown: list[ShownValidation]

    @property
    def n_passed(self) -> int:
        return sum(each.passed for each in self.shown)

    @property
    def maps(self) -> list[ShownValidation]:
        return [each for each in self.shown if each.heat_map is not None]


def validations_of(group: Group, notes: list[str]) -> Validations:
    """The validations that are done, with the heat maps of the first; a parity.csv that cannot be read is noted."""
    results = sorted((each for each in group.results if each.rows), key=lambda each: each.rows[0].verdict == "pass")
    names = short_names(group.swept)
    keys = [key for key in group.swept if key != "subject.target"]  # the summary names the subject
    shown = []
    for i, result in enumerate(results):
        heat_map = _heat_map(result, f"map{i}", notes) if i < MOST_MAPS else None
        settings = [label(value_of(result.run.job, key)) for key in keys]
        shown.append(ShownValidation(result.run.folder, settings, result.rows[0], heat_map))
    return Validations([names[key] for key in keys], shown)


def _heat_map(result: Result, name: str, notes: list[str]) -> Markup | None:
    """None if the modules were not compared, or if the table cannot be read."""
    rows = read_table(result.run.folder / "parity.csv", ParityRow, notes)
    if rows is None or not any(row.value is not None for row in isolated_rows(rows)):
        return None
    summary: SummaryRow = result.rows[0]
    dtype = None if summary.relative_difference is None else "float64"
    title = f"The error of each module of {summary.subject} on the reference's input"
    subject = summary.subject if len(summary.subject) <= _SUBJECT else f"…{summary.subject[1 - _SUBJECT :]}"
    return svg_of(lambda: draw_heat_map(subject, rows, dtype), name, title)
