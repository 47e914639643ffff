"""Suggested changes, and the patch that makes them."""

import difflib
import os
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from gpt2x.parity.rows import CauseRow
from gpt2x.parity.suggesting.code import Change, Edit, SourceFile
from gpt2x.parity.validation import Validation
from gpt2x.paths import shown


@dataclass(frozen=True)
class Lines:
    """The lines of a file in which a change begins."""

    number: int
    """The number of the first line, counted from 1."""
    before: str
    after: str


@dataclass(frozen=True)
class Suggestion:
    """The change that mends a cause."""

    order: int
    """The number of the cause, from 1."""
    change: Change
    verified: bool
    """Whether a validation of the changed code has shown that the cause is gone, and no other has come."""

    @property
    def file(self) -> SourceFile:
        """The file in which it begins."""
        return self.change[0].file

    @cached_property
    def lines(self) -> Lines:
        """Those of its first edit, and of the edits that begin in them."""
        data = self.file.data
        edits = sorted((edit for edit in self.change if edit.file == self.file), key=lambda edit: edit.start)
        begin = data.rfind(b"\n", 0, edits[0].start) + 1
        end = _end_of_line(data, edits[0].end)
        edits = [edit for edit in edits if edit.start < end]
        end = _end_of_line(data, max(edit.end for edit in edits))
        moved = [Edit(edit.file, edit.start - begin, edit.end - begin, edit.text) for edit in edits]
        before, after = data[begin:end], edited(data[begin:end], moved)
        return Lines(data[:begin].count(b"\n") + 1, before.decode(), after.decode())


@dataclass
class Suggestions:
    """What can be said of how to mend a subject."""

    tried: bool = False
    """Whether changes were to be verified."""
    found: list[Suggestion] = field(default_factory=list)
    after: Validation | None = None
    """The validation of the code with all verified changes; None if there are none, or if it cannot be validated."""

    @property
    def verified(self) -> list[Suggestion]:
        return [each for each in self.found if each.verified]

    @property
    def folder(self) -> Path:
        """What the patch is for: the working directory or, if files lie elsewhere, the folder they have in common."""
        files = [edit.file.path for each in self.verified for edit in each.change]
        if all(file.is_relative_to(Path.cwd()) for file in files):
            return Path.cwd()
        return Path(os.path.commonpath([file.parent for file in files]))

    def placed(self, rows: Collection[CauseRow]) -> list[CauseRow]:
        """The rows of causes, with the file and the line of what was found for each of them."""
        found = {each.order: (shown(each.file.path), each.lines.number) for each in self.found}
        nowhere = ("", None)
        places = [found.get(row.order, nowhere) for row in rows]
        return [replace(row, file=file, line=line) for row, (file, line) in zip(rows, places, strict=True)]

    @property
    def patch(self) -> str:
        """All verified changes as a unified diff, with paths relative to `folder`; empty if there are none."""
        edits = [edit for each in self.verified for edit in each.change]
        diffs = []
        for file in dict.fromkeys(edit.file for edit in edits):
            new = edited(file.data, [edit for edit in edits if edit.file is file])
            diffs.append(_diff(file.data.decode(), new.decode(), file.path.relative_to(self.folder).as_posix()))
        return "".join(diffs)


def edited(data: bytes, edits: Collection[Edit]) -> bytes:
    """The content of a file after the edits, which must not overlap."""
    for edit in sorted(edits, key=lambda edit: edit.start, reverse=True):
        data = data[: edit.start] + edit.text.encode() + data[edit.end :]
    return data


def _end_of_line(data: bytes, offset: int) -> int:
    end = data.find(b"\n", offset)
    return len(data) if end < 0 else end


def _diff(old: str, new: str, name: str) -> str:
    """A unified diff as `git apply` and `patch -p1` read it."""
    lines = difflib.unified_diff(_lines(old), _lines(new), f"a/{name}", f"b/{name}")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _lines(text: str) -> list[str]:
    """Lines with their ends; only a line feed ends one."""
    *lines, last = text.split("\n")
    return [*(f"{line}\n" for line in lines), *([last] if last else [])]
