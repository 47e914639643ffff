"""The tables of a long job: rows appended and flushed as they come, and taken up again where a kill left them."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from gpt2x.errors import UserError
from gpt2x.paths import shown, write_text
from gpt2x.runs.tables import row_values, rows_of, to_csv, write_rows

STATE = "state.json"
"""In a run folder while the job in it is unfinished."""


class Journal:
    """Some tables of one run folder, written to until `finish`. Nothing is on disk before the first row is."""

    def __init__(self, run_dir: Path, tables: dict[str, type], settings: dict[str, Any]) -> None:
        """Takes up what is there; UserError if that was begun with other settings."""
        self.run_dir, self.tables = run_dir, tables
        self.facts: dict[str, Any] = {"settings": settings}
        self.rows: dict[str, list[Any]] = {name: [] for name in tables}
        state = run_dir / STATE
        self.begun = state.is_file()
        if not self.begun:
            return
        try:
            self.facts = json.loads(state.read_text(encoding="utf-8"))
            same = self.facts["settings"] == json.loads(json.dumps(settings))
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"{shown(state)}: cannot be read; give another hydra.run.dir") from None
        if not same:
            raise UserError(f"{shown(run_dir)}: begun with other settings; give another hydra.run.dir")
        for name, row_type in tables.items():
            if (run_dir / name).is_file():
                self.rows[name] = _whole_rows(run_dir / name, row_type)

    def rewrite(self, rows: dict[str, list[Any]], **facts: Any) -> None:
        """Makes these all the rows there are, and notes what else it takes to go on."""
        self.facts |= facts
        self.rows = {name: list(table) for name, table in rows.items()}
        if self.begun:
            self._write()

    def append(self, rows: dict[str, list[Any]]) -> None:
        """Adds rows to the tables, in the order of `tables`: the last one's say that those before are whole.

        Raises UserError if a file cannot be written (a full disk, say).
        """
        if not self.begun:
            self._write()
            self.begun = True
        for name in self.tables:
            self.rows[name] += rows[name]
            try:
                with (self.run_dir / name).open("a", encoding="utf-8", newline="") as stream:
                    stream.write(to_csv(None, map(row_values, rows[name])))
            except OSError as error:
                raise UserError(f"cannot write {shown(self.run_dir / name)}: {error.strerror}") from None

    def finish(self, rows: dict[str, list[Any]]) -> None:
        """Writes the tables as they shall stand."""
        for name, row_type in self.tables.items():
            write_rows(self.run_dir / name, row_type, rows[name])
        (self.run_dir / STATE).unlink(missing_ok=True)

    def _write(self) -> None:
        for name, row_type in self.tables.items():
            write_rows(self.run_dir / name, row_type, self.rows[name])
        write_text(self.run_dir / STATE, json.dumps(self.facts, ensure_ascii=False))


def _whole_rows(path: Path, row_type: type) -> list[Any]:
    """The rows of a table but for a last one that is not written to its end."""
    text = path.read_bytes().decode("utf-8", errors="ignore")
    rows = []
    records = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in rows_of(records, row_type):
            rows.append(row)
    except (csv.Error, ValueError, TypeError):
        return rows
    return rows if text.endswith("\r\n") else rows[:-1]
