"""CSV tables, written and read: one dataclass per row type, whose fields are the header, in their order."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from gpt2x.paths import write_text

if TYPE_CHECKING:
    from pandas import DataFrame

csv.field_size_limit(2**31 - 1)  # a long prompt is one field

ADDED_BY_COLLECTING = ("job", "run", "notes")
"""Columns that say, where tables of several runs are joined, which run a row is from."""


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


@dataclass(frozen=True)
class ExtraColumns:
    """Columns after those of the row type, which only some runs have. Their values are text."""

    names: tuple[str, ...] = ()
    values: Callable[[Any], Sequence[str]] = lambda row: ()
    """From a row to its values in these columns, one per name."""


NO_EXTRA = ExtraColumns()


def write_rows(path: Path, row_type: type, rows: Iterable[Any], extra: ExtraColumns = NO_EXTRA) -> None:
    """Writes a table, whole or not at all. Raises UserError if the file cannot be written."""
    write_text(path, to_csv([*columns_of(row_type), *extra.names], (row_values(row, extra) for row in rows)))


def columns_of(row_type: type) -> list[str]:
    """The header of a table with rows of this type."""
    return [field.name for field in fields(row_type)]


def row_values(row: Any, extra: ExtraColumns = NO_EXTRA) -> list[Any]:
    return [*(getattr(row, field.name) for field in fields(row)), *extra.values(row)]


def read_rows(path: Path, row_type: type) -> list[Any]:
    """The rows of a file that write_rows wrote. An empty field is read as None if the type allows it, else as ''."""
    with path.open(encoding="utf-8", newline="") as stream:
        return list(rows_of(csv.DictReader(stream), row_type))


def rows_of(records: Iterable[dict[str, str]], row_type: type) -> Iterator[Any]:
    """Records of a CSV as rows of this type, without their other columns.

    Raises ValueError for a record that is incomplete or of another type.
    """
    hints = get_type_hints(row_type)
    for record in records:
        if None in record or None in record.values() or not hints.keys() <= record.keys():
            raise ValueError(f"not a row of {row_type.__name__}")
        yield row_type(**{name: parse(record[name], hint) for name, hint in hints.items()})


def parse(text: str, hint: Any) -> Any:
    """A field of a CSV as a value of this type."""
    types = get_args(hint) or (hint,)
    if text == "" and type(None) in types:
        return None
    if types[0] is bool:
        return text == "True"
    return types[0](text)


def to_frame(row_type: type, rows: Iterable[Any]) -> "DataFrame":
    """Rows as a table of pandas: the columns of the CSV, with the dtypes of `dtype_of`."""
    import pandas as pd

    table, hints = list(rows), get_type_hints(row_type)
    return pd.DataFrame(
        {
            field.name: pd.array([_plain(getattr(row, field.name)) for row in table], dtype=dtype_of(hints[field.name]))
            for field in fields(row_type)
        }
    )


def _plain(value: Any) -> Any:
    """The text of an enum's member; any other value unchanged."""
    return str(value) if isinstance(value, StrEnum) else value


def dtype_of(hint: Any) -> str:
    """The dtype in pandas of a column whose values have this type; one that may be missing has a dtype with NA."""
    types = get_args(hint) or (hint,)
    may_be_missing = type(None) in types
    if issubclass(types[0], str):
        return "string"
    if types[0] is float:
        return "float64"
    names = {bool: ("bool", "boolean"), int: ("int64", "Int64")}
    return names[types[0]][may_be_missing]
