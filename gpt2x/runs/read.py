"""The tables of many run folders as one, with the settings of each run as columns."""

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from gpt2x.config.settings import used_settings
from gpt2x.errors import UserError
from gpt2x.paths import shown
from gpt2x.runs.job import JOB, Job, Status, read_job
from gpt2x.runs.sweep import SWEEP
from gpt2x.runs.tables import dtype_of, parse

if TYPE_CHECKING:
    from pandas import DataFrame
    from pandas.api.extensions import ExtensionArray

RUN, STATUS = "run", "run.status"


def read_tables(folder: Path, name: str, row_type: type, unfinished: bool = False) -> "DataFrame":
    """The rows of the CSV `name` of all runs in and below the folder, in the order of the runs' paths.

    The first column, `run`, is the path of the run folder; with `unfinished`, `run.status` follows. Then come the
    columns of the table, and the settings of the runs by dotted key. A setting that has the name of a column of the
    table is left out. Only runs that are done are read, unless `unfinished` is true. Raises UserError if there is no
    run, or none with this table.
    """
    import pandas as pd

    jobs = dict(_jobs(folder))
    if not jobs:
        raise UserError(f"{shown(folder)}: no run in it: no folder at or below it has a {JOB}")
    wanted = {run: job for run, job in jobs.items() if unfinished or job.status is Status.DONE}
    found = {run: job for run, job in wanted.items() if (run / name).is_file()}
    if not found:
        states = ", ".join(sorted({f"task={job.task} ({job.state})" for job in jobs.values()}))
        raise UserError(f"{shown(folder)}: {len(jobs)} runs, but none that is done has a {name}; there are {states}")
    table: dict[str, list[Any]] = {}
    settings: dict[str, list[Any]] = {}
    n = 0
    for run, job in found.items():
        columns = _columns(run / name, complete=job.status is Status.DONE)
        n_rows = len(next(iter(columns.values()), []))
        columns = {RUN: [str(run)] * n_rows, **({STATUS: [job.state] * n_rows} if unfinished else {}), **columns}
        _extend(table, columns, n, n_rows)
        _extend(settings, {key: [value] * n_rows for key, value in _settings(run, job).items()}, n, n_rows)
        n += n_rows
    hints = get_type_hints(row_type)
    frame = {key: _parsed(values, hints.get(key, str | None)) for key, values in table.items()}
    frame |= {key: _inferred(values) for key, values in settings.items() if key not in frame}
    return pd.DataFrame(frame)


def _jobs(folder: Path) -> Iterator[tuple[Path, Job]]:
    """The run folders at and below a folder. A sweep's root is none: its tables repeat those of its jobs."""
    for path, folders, files in os.walk(folder):
        folders.sort()
        if JOB in files and SWEEP not in files:
            job = read_job(Path(path))
            if job is not None:
                yield Path(path), job


def _columns(file: Path, complete: bool) -> dict[str, list[str]]:
    """Column -> its fields, as text. Where the table need not be complete, a last row that is cut short is left out.

    Raises UserError for a file that is no CSV with a header.
    """
    rows: list[list[str]] = []
    try:
        text = file.read_bytes().decode("utf-8", errors="strict" if complete else "ignore")
        with suppress(*([] if complete else [csv.Error])):
            rows.extend(csv.reader(io.StringIO(text, newline=""), strict=True))
        if not complete and rows and len(rows[-1]) < len(rows[0]):
            rows.pop()
        header, *body = rows
        if any(len(row) != len(header) for row in body):
            raise ValueError("a row has another number of fields than the header")
        return {key: [row[place] for row in body] for place, key in enumerate(header)}
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{shown(file)}: cannot be read: {error}") from None


def _settings(run: Path, job: Job) -> dict[str, Any]:
    """The settings that the run's task reads, by dotted key; a list is given as JSON.

    They are those of manifest.json, or, for a run that is not done, those of job.json, which lack the paths of inputs.
    """
    try:
        container = json.loads((run / "manifest.json").read_text(encoding="utf-8"))["config"]
        settings = used_settings(container)
    except (OSError, ValueError, KeyError, TypeError):
        settings = job.identity.settings
    return {
        key: json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
        for key, value in settings.items()
    }


def _extend(columns: dict[str, list[Any]], new: Mapping[str, list[Any]], n: int, n_new: int) -> None:
    """Adds n_new rows to columns of n rows. What a column lacks, before or now, is None."""
    for key in new:
        columns.setdefault(key, [None] * n)
    for key, values in columns.items():
        values += new.get(key, [None] * n_new)


def _parsed(fields: list[str | None], hint: Any) -> "ExtensionArray":
    """Fields of a CSV as a column of this type; where a run's table lacks the column, the value is missing."""
    import pandas as pd

    if None in fields:
        hint = hint | None
    return pd.array([None if text is None else parse(text, hint) for text in fields], dtype=dtype_of(hint))


def _inferred(values: list[Any]) -> "ExtensionArray":
    """A column of settings with the dtype that its values have in common; any of them may be missing."""
    import pandas as pd

    kinds = {type(value) for value in values if value is not None}
    for kind in (bool, int, str):
        if kinds == {kind}:
            return pd.array(values, dtype=dtype_of(kind | None))
    if kinds and kinds <= {int, float}:
        return pd.array(values, dtype="float64")
    return pd.array(values, dtype="object")
