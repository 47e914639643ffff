"""All runs at and below a folder, whatever their state: what a report is about. What cannot be read becomes a note."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt2x.errors import UserError
from gpt2x.paths import shown
from gpt2x.runs.collect import jobs_of
from gpt2x.runs.found import Found, look
from gpt2x.runs.job import JOB, Job, Status
from gpt2x.runs.sweep import SWEEP

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Run:
    """A run folder with its job, and its state at the time of reading."""

    folder: Path
    job: Job
    state: Status
    error: str | None
    """Why the run failed, or what is wrong with its results."""
    manifest: dict[str, Any]
    """Empty if the run is not done."""

    @property
    def done(self) -> bool:
        return self.state is Status.DONE


@dataclass
class Survey:
    """What a folder holds."""

    folder: Path
    runs: list[Run] = field(default_factory=list)
    """Ordered by the folder that they lie in, then by the time of their command, then as in the sweep."""
    sweeps: list[Path] = field(default_factory=list)
    """The folders that hold a sweep.json, if it can be read."""
    notes: list[str] = field(default_factory=list)
    """One line per file that could not be read."""
    replaced: int = 0
    """How many jobs of sweeps are left out, because later ones have replaced them."""
    stale: int = 0
    """How many of the other jobs of sweeps are stale."""


def survey(folder: Path, tables: Mapping[str, type], without: tuple[str, ...] = ()) -> Survey:
    """Reads the runs of all tasks but `without`, apart from jobs of a sweep that are replaced or have not begun.

    The content of `tables` is checked. Raises UserError if there is no run.
    """
    found = Survey(folder)
    of_sweeps: set[Path] = set()
    for path, folders, files in os.walk(folder):
        folders.sort()
        if SWEEP in files:
            of_sweeps |= _add_sweep(found, Path(path), tables, without)
        elif JOB in files and Path(path) not in of_sweeps:
            _add(found, look(Path(path), is_read=tables.__contains__), without)
    if not found.runs and not found.notes:
        others = f", apart from those of task={' and '.join(without)}" if without else ""
        raise UserError(f"{shown(folder)}: no run in it: no folder at or below it has a {JOB}{others}")
    found.runs.sort(key=lambda run: (run.folder.parent, run.job.invocation, run.job.number or 0, run.folder.name))
    return found


def _add_sweep(found: Survey, sweep: Path, tables: Mapping[str, type], without: tuple[str, ...]) -> set[Path]:
    """Adds the jobs of a sweep; returns their folders. There are none if its sweep.json cannot be read."""
    try:
        jobs = [each for each in jobs_of(sweep, tables) if each.state is not Status.WAITING]
    except UserError as error:
        found.notes.append(str(error))
        return set()
    found.sweeps.append(sweep)
    for each in jobs:
        if each.is_replaced:
            found.replaced += 1
        else:
            found.stale += each.stale is not None
            _add(found, each, without)
    return {each.folder for each in jobs}


def _add(found: Survey, run: Found | None, without: tuple[str, ...]) -> None:
    if run is None or run.job.task in without:  # None: it has been removed since the folder was listed
        return
    if run.error is not None and not run.job.task:
        found.notes.append(run.error)
        return
    manifest = _manifest(found, run.folder) if run.state is Status.DONE else {}
    found.runs.append(Run(run.folder, run.job, run.state, run.error, manifest))


def _manifest(found: Survey, folder: Path) -> dict[str, Any]:
    file = folder / MANIFEST
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("not an object")
        return content
    except (OSError, ValueError) as error:
        found.notes.append(f"{shown(file)}: cannot be read: {error}")
        return {}


def read_commands(sweep: Path) -> list[list[str]]:
    """The overrides of each command that ran in the folder of a sweep. Raises UserError if they cannot be read."""
    file = sweep / SWEEP
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return [[str(override) for override in each["overrides"]] for each in content["invocations"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{shown(file)}: cannot be read: {error}") from None
