"""The result files of a job: what job.json records of them, and whether they are still what the job wrote."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from gpt2x.runs.job import Job

Results = dict[str, list[int | str]]
"""Name of each file, relative to the run folder -> its size in bytes and its SHA-256 in hexadecimal."""


def results_in(folder: Path, names: Iterable[str]) -> Results:
    """The files of these names that exist in a run folder; all files below, where a name is that of a folder."""
    found: Results = {}
    for file in _files(folder, names):
        found[file.relative_to(folder).as_posix()] = [file.stat().st_size, _sha256(file)]
    return found


def damage(folder: Path, job: Job, is_read: Callable[[str], bool] = lambda name: True) -> str | None:
    """What is wrong with the results of a job that is done; None if they are whole.

    The size of every file is compared, and the content of those that `is_read` accepts by their name. A job of a
    version of gpt2x that recorded no results counts as whole.
    """
    root = f"{folder}/"
    for name, (size, digest) in (job.results or {}).items():
        try:
            file = root + name
            if os.stat(file).st_size != size or (is_read(name) and _sha256(file) != digest):  # noqa: PTH116 (fast)
                return f"{name} is not what the job wrote"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name}: {error.strerror}"
    return None


def has_results(folder: Path, job: Job, name: str) -> bool:
    """Whether a job that is done has written the file of this name."""
    return name in job.results if job.results is not None else (folder / name).is_file()


def _files(folder: Path, names: Iterable[str]) -> Iterator[Path]:
    for name in names:
        path = folder / name
        if path.is_dir():
            yield from (file for file in sorted(path.rglob("*")) if file.is_file())
        elif path.is_file():
            yield path


def _sha256(file: str | Path) -> str:
    with open(file, "rb", buffering=0) as stream:  # noqa: PTH123 (fast)
        return hashlib.file_digest(stream, "sha256").hexdigest()
