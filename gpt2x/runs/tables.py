"""The CSVs: a dataclass a row type, its fields the header in this order; writing, reading, collecting."""

import csv
import io
import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from gpt2x.paths import write_text

csv.field_size_limit(2**31 - 1)  # a long prompt is one field


@dataclass(frozen=True)
class TimingRow:
    """timing.csv: where the time of a run went."""

    stage: str
    seconds: float


def to_csv(header: Sequence[str] | None, rows: Iterable[Sequence[Any]]) -> str:
    """RFC 4180; text quoted, floats to 9 significant digits, None empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, quoting=csv.QUOTE_NONNUMERIC)
    if header is not None:
        writer.writerow(header)
    for row in rows:
        writer.writerow([float(f"{value:.9g}") if isinstance(value, float) else value for value in row])
    return stream.getvalue()


def write_rows(path: Path, row_type: type, rows: Iterable[Any]) -> None:
    """Writes rows of one dataclass, whole or not at all; UserError if the file cannot be written."""
    header = [field.name for field in fields(row_type)]
    write_text(path, to_csv(header, map(row_values, rows)))


def row_values(row: Any) -> list[Any]:
    return [getattr(row, field.name) for field in fields(row)]


@dataclass(frozen=True)
class JobRow:
    """jobs.csv of a sweep: one row a job."""

    job: str
    """The job's folder: a hash of its configuration."""
    overrides: str
    status: str
    """done | failed | skipped (does not fit in memory) | interrupted."""
    error: str | None
    seconds: float


def read_rows(path: Path, row_type: type) -> list[Any]:
    """Rows as written by write_rows, with their types; an empty text reads as '' or None, as the field allows."""
    with path.open(encoding="utf-8", newline="") as stream:
        return list(rows_of(csv.DictReader(stream), row_type))


def rows_of(records: Iterable[dict[str, str]], row_type: type) -> Iterator[Any]:
    """Records of a CSV as rows; ValueError or TypeError where one is not whole."""
    hints = get_type_hints(row_type)
    for record in records:
        yield row_type(**{name: _parse(text, hints[name]) for name, text in record.items()})


def _parse(text: str, hint: Any) -> Any:
    types = get_args(hint) or (hint,)
    if text == "" and type(None) in types:
        return None
    if types[0] is bool:
        return text == "True"
    return types[0](text)


def collect_sweep(sweep_dir: Path, jobs: list[tuple[Path, dict[str, Any]]], tables: dict[str, type]) -> None:
    """Writes jobs.csv, and each table of the jobs concatenated, with the job and the swept settings before it.

    `jobs` are folders and their manifests' facts, in the order of the sweep.
    """
    settings = [facts["settings"] for _, facts in jobs]
    keys = dict.fromkeys(key for setting in settings for key in setting)
    swept = [key for key in keys if any(setting.get(key) != settings[0].get(key) for setting in settings)]
    rows = [
        JobRow(folder.name, shlex.join(facts["overrides"]), facts["status"], facts["error"], facts["seconds"])
        for folder, facts in jobs
    ]
    write_rows(sweep_dir / "jobs.csv", JobRow, rows)
    for name, row_type in tables.items():
        columns = [field.name for field in fields(row_type)]
        extra = [key for key in swept if key not in columns]  # a swept prompt is in its table already
        table = [
            [folder.name, *(_cell(facts["settings"].get(key)) for key in extra), *row_values(row)]
            for folder, facts in jobs
            if facts["status"] == "done" and (folder / name).is_file()
            for row in read_rows(folder / name, row_type)
        ]
        if table:
            write_text(sweep_dir / name, to_csv(["job", *extra, *columns], table))


def _cell(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, type(None))) else json.dumps(value, ensure_ascii=False)
