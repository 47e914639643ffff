"""What is shown after a sweep: the settings of its jobs against their main numbers, from the job folders alone."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from textwrap import shorten, wrap
from typing import Any

from rich.table import Column

from gpt2x.benchmark.rows import BenchmarkRow
from gpt2x.config.objective import Objective
from gpt2x.decoding.rows import GenerationRow
from gpt2x.decoding.scores import logprob
from gpt2x.evaluation.rows import EvaluationRow, bits_per_byte
from gpt2x.parity.conversion.rows import ReaderRow, Verdict
from gpt2x.parity.rows import SummaryRow
from gpt2x.reports import console
from gpt2x.runs.collect import JOBS, as_cell, setting_of, short_names, swept_settings
from gpt2x.runs.found import Found
from gpt2x.runs.job import Status
from gpt2x.runs.tables import read_rows
from gpt2x.training.rows import TrainRow

_MOST_JOBS = 20
_WIDTH = 80
_LONGEST = 40  # characters of a setting's value in the line of a job that failed
_LONG = 10  # characters: longer values of settings are cut off where space is short


@dataclass(frozen=True)
class _Numbers:
    """The main numbers of a task, from one of the tables of a job."""

    table: str
    row_type: type
    columns: dict[str, Callable[[list[Any]], str]]
    """Heading -> the number, as text, from the table's rows."""
    verdict: Callable[[list[Any]], str] | None = None
    """What stands in place of the status of a job that is done."""


def _logprob(rows: list[GenerationRow]) -> str:
    mean = logprob(rows)
    return "" if mean is None else f"{mean:.3f}"


def _new_tokens(rows: list[GenerationRow]) -> str:
    return f"{sum(row.n_new_tokens for row in rows) / len(rows):.1f}" if rows else ""  # a shard may have no prompts


def _relative_difference(rows: list[SummaryRow]) -> str:
    return "" if rows[0].relative_difference is None else f"{rows[0].relative_difference:.2g}"


def _tokens_per_second(rows: list[BenchmarkRow]) -> str:
    own = [row.tokens_per_second for row in rows if row.engine == "gpt2x"]
    return f"{max(own):,.0f}" if own else ""


def _verdict(rows: list[ReaderRow]) -> str:
    return str(Verdict.FAIL if any(row.verdict == Verdict.FAIL for row in rows) else Verdict.PASS)


def _max_error(rows: list[ReaderRow]) -> str:
    return "" if rows[0].max_abs_error is None else f"{rows[0].max_abs_error:.2g}"


_NUMBERS = {
    "generate": _Numbers(
        "generations.csv",
        GenerationRow,
        {
            "samples": lambda rows: f"{len(rows)}",
            "logprob/token": _logprob,
            "new tokens": _new_tokens,
        },
    ),
    "validate": _Numbers(
        "summary.csv", SummaryRow, {"rel. difference": _relative_difference}, lambda rows: rows[0].verdict
    ),
    "train": _Numbers(
        "train.csv", TrainRow, {"bits per byte": lambda rows: f"{min(row.val_bits_per_byte for row in rows):.4f}"}
    ),
    "evaluate": _Numbers("evaluation.csv", EvaluationRow, {"bits per byte": lambda rows: f"{bits_per_byte(rows):.4f}"}),
    "benchmark": _Numbers("benchmark.csv", BenchmarkRow, {"tokens/s": _tokens_per_second}),
    "export": _Numbers("certificate.csv", ReaderRow, {"max error": _max_error}, _verdict),
}


def show_sweep(jobs: list[Found], objective: Objective | None = None) -> None:
    """Prints the first jobs as a table, how many jobs there are of each status, which failed, and what is stale."""
    swept = short_names(swept_settings([each.job for each in jobs if each.job.chosen]))
    headings = {heading: key for key, heading in swept.items()}
    lines = [_line(each, headings, objective) for each in jobs[:_MOST_JOBS]]
    columns = []
    for heading in dict.fromkeys(heading for line in lines for heading in line):
        longest = max(len(heading), *(len(line.get(heading, "")) for line in lines))
        is_long = heading in headings and longest > _LONG
        columns.append(Column(heading, ratio=longest if is_long else None))
    table = console.plain_table(*columns)
    for line in lines:
        table.add_row(*(console.as_line(line.get(str(column.header), "")) for column in columns))
    console.out.print(table)
    if len(jobs) > _MOST_JOBS:
        console.out.print(f"and {len(jobs) - _MOST_JOBS} more")
    counts = Counter(each.state for each in jobs)
    parts = ", ".join(f"{counts[status]} {status}" for status in Status if counts[status])
    console.out.print(f"{len(jobs)} job{'s' if len(jobs) > 1 else ''}: {parts}")
    _show_failures([each for each in jobs if each.failed], headings)
    replaced = sum(each.is_replaced for each in jobs)
    if replaced:
        console.out.print(f"{replaced} replaced by jobs with other input files, as {JOBS} explains")
    stale = sum(each.stale is not None and not each.is_replaced for each in jobs)
    if stale:
        console.out.print(f"{stale} stale, as {JOBS} explains; rerun=stale runs them again")


def _show_failures(failed: list[Found], headings: dict[str, str]) -> None:
    """Prints one line per job that failed: its state, its swept settings, and the error."""
    for each in failed[:_MOST_JOBS]:
        values = {heading: str(as_cell(setting_of(each.job, key))) for heading, key in headings.items()}
        settings = "".join(f" {heading}={shorten(value, _LONGEST)}" for heading, value in values.items())
        error = f": {each.error}" if each.error else ""
        text = console.as_line(f"{each.state} {each.name}{settings}{error}").plain
        console.out.print("\n".join(wrap(text, _WIDTH, subsequent_indent="    ")))
    if len(failed) > _MOST_JOBS:
        console.out.print(f"and {len(failed) - _MOST_JOBS} more that failed, see {JOBS}")


def _line(found: Found, headings: dict[str, str], objective: Objective | None) -> dict[str, str]:
    """Heading -> cell, for one job. In a search, the only number is the one that is optimized."""
    job, settings = found.job, {}
    if job.chosen:
        settings = {heading: str(as_cell(setting_of(job, key))) for heading, key in headings.items()}
    if objective is not None:
        number = job.numbers.get(objective.name)
        return {"status": found.state} | settings | {objective.name: "" if number is None else f"{number:.6g}"}
    numbers = _NUMBERS.get(job.task)
    if numbers is None or found.state is not Status.DONE or not (found.folder / numbers.table).is_file():
        return {"status": found.state} | settings
    rows = read_rows(found.folder / numbers.table, numbers.row_type)
    status = numbers.verdict(rows) if numbers.verdict else found.state
    return {"status": status} | settings | {heading: number(rows) for heading, number in numbers.columns.items()}
