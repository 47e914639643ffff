"""sweep.json, in the folder of a sweep: the commands that ran there, and the sweep's jobs in their order."""

import json
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gpt2x.errors import UserError
from gpt2x.paths import expanded, shown, write_text
from gpt2x.runs.job import JOB
from gpt2x.runs.lock import locked

SWEEP = "sweep.json"
NAMED = Path("runs", "sweeps")
"""Where sweeps are, below the launch directory."""


@dataclass(frozen=True)
class Planned:
    """A job of a sweep, whether it has been started or not."""

    job: str
    """The name of its folder."""
    overrides: list[str]
    stale: str | None = None
    """Which of its input files have changed, for a job that is done and was not run again."""
    chosen: dict[str, Any] = field(default_factory=dict)
    """Key of each override -> its value, apart from options of groups: as the last command that asked for it has it."""
    slot: str | None = None
    """A hash of what the job has in common with those from which only its input files differ."""


def folder_of_runs(task: str, runs: str | None, sweep: str | None) -> Path:
    """The folder whose runs a task reads: the one that task.runs names, or that of a named sweep.

    Raises UserError if neither is given, or if there is no such folder.
    """
    if runs is not None:
        folder, setting = expanded(runs, "task.runs"), f"task.runs={runs}"
    elif sweep is not None:
        folder, setting = NAMED / sweep, f"sweep={sweep}"
    else:
        raise UserError(f"task={task}: name a sweep with sweep=NAME, or any folder with runs with task.runs=FOLDER")
    if not folder.is_dir():
        raise UserError(f"{setting}: there is no folder {shown(folder)}")
    return folder


def begin_sweep(folder: Path, invocation: str, overrides: list[str]) -> None:
    """Adds a command to sweep.json, before its jobs start. Raises UserError if the file cannot be read or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{shown(folder)}: {error.strerror}; choose another folder with hydra.sweep.dir=DIR") from None
    with locked_sweep(folder):
        content = _read(folder)
        content["invocations"].append({"stamp": invocation, "overrides": overrides})
        _write(folder, content)


def plan_jobs(folder: Path, jobs: list[Planned]) -> None:
    """Notes the jobs of a command in sweep.json, before they start.

    They are the last ones, in their order: so a sweep whose lists of values have become longer or have another order
    ends in the tables of its last command. A job that was never started is forgotten if it differs from one of them
    only in the content of input files, which no longer exists. Raises UserError if the file cannot be read or written.
    """
    with locked_sweep(folder):
        content = _read(folder)
        new = {each.job: each for each in jobs}
        slots = {each.slot for each in jobs} - {None}
        kept = [each for each in _planned(folder, content) if each.job not in new]
        kept = [each for each in kept if each.slot not in slots or (folder / each.job / JOB).exists()]
        content["jobs"] = [asdict(each) for each in (*kept, *new.values())]
        _write(folder, content)


def planned_jobs(folder: Path) -> list[Planned]:
    """The jobs of a sweep in their order. Raises UserError if sweep.json cannot be read."""
    return _planned(folder, _read(folder))


def locked_sweep(folder: Path) -> AbstractContextManager[None]:
    """Waits until no other command reads or writes the files at the sweep's root."""
    return locked(folder / ".sweep.lock", "hydra.sweep.dir", wait=True)


def _planned(folder: Path, content: dict[str, Any]) -> list[Planned]:
    try:
        return [Planned(**each) for each in content["jobs"]]
    except TypeError:
        raise _unreadable(folder) from None


def _read(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / SWEEP).read_text(encoding="utf-8"))
        if not all({"stamp", "overrides"} <= each.keys() for each in content["invocations"]):
            raise ValueError("an invocation without its stamp or its overrides")
        return {"invocations": content["invocations"], "jobs": list(content["jobs"])}
    except FileNotFoundError:
        return {"invocations": [], "jobs": []}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise _unreadable(folder) from None


def _unreadable(folder: Path) -> UserError:
    return UserError(f"{shown(folder / SWEEP)}: cannot be read; give another hydra.sweep.dir")


def _write(folder: Path, content: dict[str, Any]) -> None:
    write_text(folder / SWEEP, json.dumps(content, indent=1, ensure_ascii=True) + "\n")
