"""The texts of a user's files. A process can try other texts, while the files stay as they are."""

import linecache
from collections.abc import Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType

_tried: dict[str, str] = {}
_get_code = SourceFileLoader.get_code


def try_texts(texts: Mapping[str, str]) -> None:
    """File -> the text that it has in this process from now on, whoever imports it."""
    _tried.update(texts)
    if texts:
        SourceFileLoader.get_code = _code_that_is_tried  # type: ignore[assignment,method-assign]
    for file, text in texts.items():  # for what asks `inspect` for its own source, such as torch.jit.script
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)


def text_of(file: Path) -> str:
    """The text of a file, or the one that is tried in its place."""
    if str(file) in _tried:
        return _tried[str(file)]
    return file.read_text(encoding="utf-8-sig", errors="replace")


def _code_that_is_tried(loader: SourceFileLoader, fullname: str) -> CodeType | None:
    """What SourceFileLoader.get_code returns, which may come from `__pycache__`."""
    if loader.path in _tried:
        return loader.source_to_code(_tried[loader.path].encode(), loader.path)
    return _get_code(loader, fullname)
