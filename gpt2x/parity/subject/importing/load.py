"""Imports the file or module that subject.target names."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from gpt2x.parity.subject.importing.finder import Finder
from gpt2x.parity.subject.importing.module import AfterBinding, LazyModule
from gpt2x.parity.subject.importing.statements import Statement, highest_level, read_source


@dataclass(frozen=True)
class Loaded:
    """A module of a user's, and the finder with which its imports are found."""

    module: ModuleType
    finder: Finder

    @property
    def notes(self) -> list[str]:
        """What was left out of the file, and what could not be imported or made: at most one line for each."""
        if not isinstance(self.module, LazyModule):
            return []
        code = self.module.__gpt2x__
        found = []
        if code.left_out:
            found.append(f"left out of the file, as the model does not need it: {_lines(code.left_out)}")
        if code.placeholders:
            reasons = "; ".join(f"{name}: {why}" for name, why in sorted(code.placeholders.items()))
            found.append(f"missing, which raises if the model uses it: {reasons}")
        return found


_last: list[Finder] = []  # the finder of the last subject, whose modules are forgotten before the next is imported


def load_file(file: Path, after: AfterBinding, *, lazy: bool) -> Loaded:
    """Imports a file, as a part of the package that it belongs to. `after` is called as LazyCode calls it."""
    depth = _depth(file)
    finder = _new_finder(file.parent, after, lazy=lazy, script=depth == 0)
    names = [folder.name.replace(".", "_") for folder in reversed(file.parents[:depth])]
    for i, folder in enumerate(reversed(file.parents[:depth])):
        finder.know(".".join(names[: i + 1]), folder)
    if file.name != "__init__.py" or not names:
        stem = file.stem.replace(".", "_")
        # The prefix keeps a subject in `tokenizers.py` from taking the place of the library of that name.
        names.append(stem if names else f"_subject_{stem}")
        finder.know(".".join(names), file)
    return _load(finder, ".".join(names))


def load_module(dotted: str, after: AfterBinding, *, lazy: bool) -> Loaded:
    """Imports a module by its name, from the working directory, `src` in it, or what is installed."""
    return _load(_new_finder(Path.cwd(), after, lazy=lazy, script=True), dotted)


def _new_finder(folder: Path, after: AfterBinding, *, lazy: bool, script: bool) -> Finder:
    while _last:
        _last.pop().forget()
    finder = Finder(folder, after, lazy=lazy, script=script)
    _last.append(finder)
    return finder


def _load(finder: Finder, dotted: str) -> Loaded:
    finder.choose(dotted)
    with finder.active():
        return Loaded(importlib.import_module(dotted), finder)


def _depth(file: Path) -> int:
    """How many packages a file lies in: folders with `__init__.py`, or as many as its relative imports need."""
    folder, depth = file.parent, 0
    while (folder / "__init__.py").is_file():
        folder, depth = folder.parent, depth + 1
    try:
        return max(depth, highest_level(read_source(file)))
    except SyntaxError:  # the import will raise it again
        return depth


def _lines(statements: list[Statement]) -> str:
    """`lines 3-9, 12 and 40-88`, where neighbours are joined."""
    spans: list[list[int]] = []
    for statement in statements:
        if spans and statement.first_line <= spans[-1][1] + 2:
            spans[-1][1] = statement.last_line
        else:
            spans.append([statement.first_line, statement.last_line])
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in spans]
    shown = texts if len(texts) <= 8 else [*texts[:7], f"and {len(texts) - 7} more"]
    return f"{'line' if texts == [str(spans[0][0])] else 'lines'} {', '.join(shown)}"
