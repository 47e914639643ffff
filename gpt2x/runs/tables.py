"""CSV tables, written and read: one dataclass per row type, whose fields are the header, in their order."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from gpt2x.paths import write_text

csv.field_size_limit(2**31 - 1)  # a long prompt is one field


@dataclass(frozen=True)
class TimingRow:
    """timing.csv: one row per stage of a run."""

    stage: str
    seconds: float


def to_csv(header: Sequence[str] | None, rows: Iterable[Sequence[Any]]) -> str:
    """The rows as CSV (RFC 4180): text is quoted, floats have 9 significant digits, None is an empty field."""
    stream = io.StringIO()
    writer = csv.writer(stream, quoting=csv.QUOTE_NONNUMERIC)
    if header is not None:
        writer.writerow(header)
    for row in rows:
        writer.writerow([float(f"{value:.9g}") if isinstance(value, float) else value for value in row])
    return stream.getvalue()


def write_rows(path: Path, row_type: type, rows: Iterable[Any]) -> None:
    """Writes a table, whole or not at all. Raises UserError if the file cannot be written."""
    header = [field.name for field in fields(row_type)]
    write_text(path, to_csv(header, map(row_values, rows)))


def row_values(row: Any) -> list[Any]:
    return [getattr(row, field.name) for field in fields(row)]


def read_rows(path: Path, row_type: type) -> list[Any]:
    """The rows of a file that write_rows wrote. An empty field is read as None if the type allows it, else as ''."""
    with path.open(encoding="utf-8", newline="") as stream:
        return list(rows_of(csv.DictReader(stream), row_type))


def rows_of(records: Iterable[dict[str, str]], row_type: type) -> Iterator[Any]:
    """Records of a CSV as rows of this type. Raises ValueError for a record that is incomplete or of another type."""
    hints = get_type_hints(row_type)
    for record in records:
        if record.keys() != hints.keys() or None in record.values():
            raise ValueError(f"not a row of {row_type.__name__}")
        yield row_type(**{name: _parse(text, hints[name]) for name, text in record.items()})


def _parse(text: str, hint: Any) -> Any:
    types = get_args(hint) or (hint,)
    if text == "" and type(None) in types:
        return None
    if types[0] is bool:
        return text == "True"
    return types[0](text)
