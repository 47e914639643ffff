"""The tables of a long job: rows are appended and flushed as they come, and read back where a kill left them."""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from gpt2x.errors import UserError
from gpt2x.paths import shown, write_text
from gpt2x.runs.tables import NO_EXTRA, ExtraColumns, row_values, rows_of, to_csv, write_rows

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Rows = dict[type, list[Any]]
"""Row type -> rows of that type, one entry per table."""
Facts = TypeVar("Facts", bound="DataclassInstance")

STATE = "state.json"
"""In a run folder while its job is unfinished: a folder with this file can be continued."""


class Journal(Generic[Facts]):
    """Some tables of one run folder, appended to until `finish`. No file is written before the first row is there."""

    def __init__(
        self,
        run_dir: Path,
        tables: dict[str, type],
        facts_type: type[Facts],
        extra: Mapping[type, ExtraColumns] = MappingProxyType({}),
    ) -> None:
        """Reads what an unfinished job left; `tables` maps file names to row types.

        `extra` are columns that the tables of some row types have in addition. They are written, but not read back.
        Raises UserError if the state file cannot be read. A table loses its last row if that row is incomplete.
        """
        self.run_dir, self.tables, self.extra = run_dir, tables, extra
        self.facts: Facts | None = None
        """What the job needs to continue, beside its rows; None for a new job."""
        self.rows: Rows = {row_type: [] for row_type in tables.values()}
        state = run_dir / STATE
        self.begun = state.is_file()
        if not self.begun:
            return
        try:
            self.facts = facts_type(**json.loads(state.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            raise UserError(f"{shown(state)}: cannot be read; give another hydra.run.dir") from None
        for name, row_type in tables.items():
            if (run_dir / name).is_file():
                self.rows[row_type] = _complete_rows(run_dir / name, row_type)

    def rewrite(self, rows: Rows, facts: Facts) -> None:
        """Replaces all rows and facts."""
        self.facts = facts
        self.rows = {row_type: list(table) for row_type, table in rows.items()}
        if self.begun:
            self._write()

    def append(self, rows: Rows) -> None:
        """Adds rows in the order of `tables`: a row in the last table shows that the rows in the others are complete.

        Raises UserError if a file cannot be written (because the disk is full, for example).
        """
        if not self.begun:
            self._write()
            self.begun = True
        for name, row_type in self.tables.items():
            self.rows[row_type] += rows[row_type]
            try:
                with (self.run_dir / name).open("a", encoding="utf-8", newline="") as stream:
                    extra = self.extra.get(row_type, NO_EXTRA)
                    stream.write(to_csv(None, (row_values(row, extra) for row in rows[row_type])))
            except OSError as error:
                raise UserError(f"cannot write {shown(self.run_dir / name)}: {error.strerror}") from None

    def finish(self, rows: Rows) -> None:
        """Writes the final tables and removes the state file."""
        self._write_tables(rows)
        (self.run_dir / STATE).unlink(missing_ok=True)

    def _write(self) -> None:
        assert self.facts is not None  # `rewrite` comes before the first `append`
        self._write_tables(self.rows)
        write_text(self.run_dir / STATE, json.dumps(asdict(self.facts), ensure_ascii=False))

    def _write_tables(self, rows: Rows) -> None:
        for name, row_type in self.tables.items():
            write_rows(self.run_dir / name, row_type, rows[row_type], self.extra.get(row_type, NO_EXTRA))


def _complete_rows(path: Path, row_type: type) -> list[Any]:
    """The rows of a table, without a last one that was not written to its end."""
    text = path.read_bytes().decode("utf-8", errors="ignore")
    rows = []
    records = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in rows_of(records, row_type):
            rows.append(row)
    except (csv.Error, ValueError):
        return rows
    return rows if text.endswith("\r\n") else rows[:-1]
