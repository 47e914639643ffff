"""The folder that an export writes: under a temporary name first, and then moved into place whole."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpt2x.checkpoints.exporting import EXPORTERS
from gpt2x.errors import UserError
from gpt2x.paths import shown

_FILES = {
    *(exporter.weights for exporter in EXPORTERS),
    "model.onnx.data",
    *("config.json", "vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "gpt2_tokenizer.bin"),
}
"""All that exports write."""


def check_target(folder: Path, overwrite: bool) -> None:
    """Raises UserError if the folder cannot be written, or holds something that must not be replaced.

    Even with `overwrite`, only files of the names that exports write are replaced.
    """
    try:
        found = sorted(file.name for file in folder.iterdir()) if os.path.lexists(folder) else []
    except OSError as error:
        raise UserError(f"task.path={shown(folder)}: {error.strerror}") from None
    others = [name for name in found if name not in _FILES]
    if others:
        raise UserError(f"task.path={shown(folder)}: holds {others[0]}, which no export writes; give another folder")
    if found and not overwrite:
        raise UserError(
            f"task.path={shown(folder)}: holds {found[0]} already; give another folder, or add task.overwrite=true"
        )


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """An empty folder beside `target`, which is removed at the end unless `place` has moved it.

    Raises UserError if it cannot be made.
    """
    folder = _beside(target)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot write {shown(target)}: {error.strerror}") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def place(folder: Path, target: Path) -> None:
    """Moves a staged folder into place, where it replaces what an earlier export has written."""
    old = _beside(target)
    try:
        if target.is_dir():
            target.rename(old)
        folder.rename(target)
    except OSError as error:
        if old.is_dir():
            old.rename(target)
        raise UserError(f"cannot write {shown(target)}: {error.strerror}") from None
    shutil.rmtree(old, ignore_errors=True)


def _beside(target: Path) -> Path:
    """A folder that no other process uses, with a name as that of the temporary files of gpt2x.paths."""
    return target.with_name(f".{target.name}.{os.urandom(4).hex()}.tmp")
