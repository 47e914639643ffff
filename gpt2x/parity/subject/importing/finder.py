"""Finds the modules of a user's project: beside the file, and beneath the folders above it, up to its root."""

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

from gpt2x.parity.subject.importing.module import AfterBinding, LazyLoader

_MARKS = (".git", "pyproject.toml", "setup.py", "setup.cfg")
_WEAK_MARKS = ("requirements.txt", "README.md")  # which folders within a project may have, too
_LEVELS = 4  # folders above the file, where no mark tells the project's root


class Finder(MetaPathFinder):
    """Serves imports that the project's own code makes; those of libraries are none of its business."""

    def __init__(self, folder: Path, after: AfterBinding, *, lazy: bool, script: bool) -> None:
        """`folder` is that of the user's file. With `lazy`, a module runs only those statements that are needed.

        What lies beside a script comes before installed packages of the same name, as for Python.
        """
        self._after = after
        self._lazy = lazy
        self._script = script
        self._folders = _folders(folder)
        self._known: dict[str, Path] = {}
        self._made: set[str] = set()

    def know(self, name: str, place: Path) -> None:
        """Has a module of a given name be this file, or a package this folder."""
        self._known[name] = place

    @contextmanager
    def active(self) -> Iterator[None]:
        """Imports of the project's code are served."""
        sys.meta_path.insert(0, self)
        try:
            yield
        finally:
            sys.meta_path.remove(self)

    def forget(self) -> None:
        """Removes the modules that it found, as those of the next subject may have the same names."""
        for name in self._made:
            sys.modules.pop(name, None)
        self._made.clear()
        importlib.invalidate_caches()

    def choose(self, dotted: str) -> None:
        """Chooses, before `dotted` is imported, the folder in which all parts of the name are found."""
        top, *rest = dotted.split(".")
        if rest and top not in self._known:
            places = (self._top(top, folder) for folder in self._folders if _place(folder.joinpath(top, *rest)))
            place = next(filter(None, places), None)
            if place is not None:
                self._known[top] = place

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        parent, _, name = fullname.rpartition(".")
        place = self._known.get(fullname)
        if place is None and parent:
            folders = [Path(each) for each in path or ()] if parent in self._made else []
            place = next(filter(None, (_place(folder / name) for folder in folders)), None)
        elif place is None and self._asks():
            place = next(filter(None, (self._top(name, folder) for folder in self._folders)), None)
        if place is None:
            return None
        self._made.add(fullname)
        return self._spec(fullname, place)

    def _spec(self, name: str, place: Path) -> ModuleSpec | None:
        file = place / "__init__.py" if place.is_dir() else place
        if not file.is_file():  # a namespace package
            spec = ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = [str(place)]
            return spec
        loader = LazyLoader(name, file, self.choose, self._after) if self._lazy else SourceFileLoader(name, str(file))
        inner = [str(place)] if place.is_dir() else None
        return spec_from_file_location(name, file, loader=loader, submodule_search_locations=inner)

    def _top(self, name: str, folder: Path) -> Path | None:
        """The place of a module in a folder; None if it has none, or if the name is that of an installed package."""
        place = _place(folder / name)
        if place is None:
            return None
        if self._script and folder == self._folders[0] and (place.is_file() or (place / "__init__.py").is_file()):
            return place
        try:
            spec = PathFinder.find_spec(name)
        except (ImportError, ValueError):
            return place
        return place if spec is None or spec.origin is None or self._owns(spec.origin) else None

    def _asks(self) -> bool:
        """Whether the import that is going on is one of the project's code."""
        frame = sys._getframe(2)
        while frame.f_back and "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        return self._owns(frame.f_code.co_filename) or frame.f_globals.get("__package__") == __package__

    def _owns(self, file: str) -> bool:
        return "site-packages" not in file and Path(file).is_relative_to(self._folders[-1])


def _folders(folder: Path) -> list[Path]:
    """The folder of the file, then those above it up to the project's root, and `src` beneath each of them."""
    found: list[Path] = []
    for above in [folder, *folder.parents][: _LEVELS + 1]:
        if above in (Path(above.anchor), Path.home()) and found:
            break
        found.append(above)
        if _has(above, _MARKS):
            break
    if not _has(found[-1], _MARKS):
        weak = next((i for i, above in enumerate(found) if _has(above, _WEAK_MARKS)), len(found))
        found = found[: weak + 1]
    root = found[-1]
    inner = [above / "src" for above in found if above.name != "src" and (above / "src").is_dir()]
    return [*found[:-1], *(each for each in inner if each not in found), root]


def _has(folder: Path, marks: Sequence[str]) -> bool:
    return any((folder / mark).exists() for mark in marks)


def _place(path: Path) -> Path | None:
    """The file or folder of the module at `path`, a path without `.py`; a folder must hold Python files."""
    if (path / "__init__.py").is_file():
        return path
    file = path.with_name(f"{path.name}.py")
    if file.is_file():
        return file
    return path if path.is_dir() and next(path.rglob("*.py"), None) is not None else None
