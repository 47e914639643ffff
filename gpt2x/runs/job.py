"""job.json: what a job is, and how it ended; written when the job starts and replaced when it ends."""

import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from gpt2x.errors import UserError
from gpt2x.paths import shown, write_text
from gpt2x.prompts import PROMPT_FILES

JOB = "job.json"
_FORMAT = 1


class Status(StrEnum):
    """The status of a job."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    """The job does not fit in the memory of this machine."""
    INTERRUPTED = "interrupted"
    """By Ctrl-C."""
    KILLED = "killed"
    """The process is gone. It is written only where somebody noticed: the job itself, shortly before the time limit of
    a cluster, or the command that waited for the job. In other cases job.json says that the job is running."""
    DAMAGED = "damaged"
    """Never written: job.json says that the job is done, and its results are not those that it wrote."""
    WAITING = "waiting"
    """Never written: a job of a sweep that has not been started."""


@dataclass(frozen=True)
class Identity:
    """What makes two runs the same run: their settings, and the content of the files that they read."""

    settings: dict[str, Any]
    """The settings that the task uses, by dotted key, without the paths of input files."""
    inputs: dict[str, list[str]] = field(default_factory=dict)
    """Setting, or `weights` -> SHA-256 of each of its files, sorted: names and locations of files do not count."""

    def without(self, keys: tuple[str, ...]) -> "Identity":
        """The same without some settings."""
        return Identity({key: value for key, value in self.settings.items() if key not in keys}, self.inputs)


@dataclass
class Job:
    """The content of job.json."""

    task: str
    overrides: list[str]
    """As given on the command line."""
    chosen: dict[str, Any]
    """Key of each override -> its value as composed; the name of the option for a group."""
    identity: Identity
    """The inputs are filled in before the task starts."""
    notes: str | None = None
    """The user's own text."""
    invocation: str = ""
    """The time stamp of the command that the job belongs to."""
    number: int | None = None
    """The job's place among those of a sweep; None for a run on its own."""
    attempt: int = 1
    """How often this job has been started in its folder, this time included."""
    status: Status = Status.RUNNING
    passed: bool | None = None
    """False if the job is done and parity does not hold; None until it is done."""
    exit_code: int | None = None
    """As if the job had run on its own; None until it has ended."""
    numbers: dict[str, float] = field(default_factory=dict)
    """The main results of a job that is done, by name."""
    objective: float | None = None
    """The one of the numbers that a search optimizes; None if the job has none."""
    error: str | None = None
    seconds: float | None = None
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    started: float = field(default_factory=time.time)
    """Seconds since 1970."""
    results: dict[str, list[int | str]] | None = None
    """The result files of a job that is done: see gpt2x.runs.results."""
    code: dict[str, str] = field(default_factory=dict)
    """What a job that is done was made with: see gpt2x.runs.code."""

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that identify the job and those that were given, by dotted key or as a group.

        `prompt` is None if the prompts are those of a file, which is read in its place.
        """
        settings, inputs = self.identity.settings | self.chosen, self.identity.inputs
        if "prompt" in inputs or any(key in inputs or settings.get(key) is not None for key in PROMPT_FILES):
            settings["prompt"] = None
        return settings

    def end(self, status: Status, error: str | None = None) -> None:
        self.status, self.error, self.seconds = status, error, time.time() - self.started

    def write(self, folder: Path) -> None:
        """Writes job.json, whole or not at all. Raises UserError if the file cannot be written."""
        content = {"format": _FORMAT} | asdict(self)
        write_text(folder / JOB, json.dumps(content, indent=2, ensure_ascii=True) + "\n")

    @property
    def state(self) -> Status:
        """The status; KILLED for a job whose status is `running`, but whose process no longer exists on this host."""
        if self.status is Status.RUNNING and self.host == socket.gethostname() and not self._process_exists():
            return Status.KILLED
        return self.status

    def _process_exists(self) -> bool:
        import psutil

        try:
            born = psutil.Process(self.pid).create_time()
        except psutil.Error:
            return False
        return born <= self.started + 1  # a process that is younger than the job has only been given the same pid


def read_job(folder: Path) -> Job | None:
    """The content of a folder's job.json; None if there is no such file. Raises UserError if it cannot be read."""
    file = folder / JOB
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{shown(file)}: cannot be read ({error}); remove the folder, or give another one") from None
    try:
        if content.pop("format") != _FORMAT:
            raise ValueError("written by another version of gpt2x")
        known = {each.name for each in fields(Job)}
        job = Job(**{key: value for key, value in content.items() if key in known})
        job.status = Status(job.status)
        job.identity = Identity(**content["identity"])
        for part in (job, job.identity):
            _check_types(part)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{shown(file)}: not a job of gpt2x ({error}); remove the folder, or give another") from None
    return job


def _check_types(part: Job | Identity) -> None:
    """Raises ValueError if a field does not hold what its annotation says; the content of lists is not looked at."""
    for name, allowed in _TYPES[type(part).__name__].items():
        value = getattr(part, name)
        if not isinstance(value, allowed):
            raise ValueError(f"{name} is {value!r}")


def _allowed_types(part: type) -> dict[str, tuple[type, ...]]:
    """Name of each field -> the types that its value may have; an int may stand for a float."""
    allowed = {}
    for name, hint in get_type_hints(part).items():
        options = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        types = tuple(get_origin(option) or option for option in options)
        allowed[name] = (*types, *([int] if float in types else []))
    return allowed


_TYPES = {part.__name__: _allowed_types(part) for part in (Job, Identity)}


def differences(recorded: Identity, now: Identity, defaults: Mapping[str, Any]) -> list[str]:
    """Names of the settings and inputs in which two runs differ. A setting that one run lacks has its default there."""
    keys = sorted({*recorded.settings, *now.settings})
    different = [
        key for key in keys if recorded.settings.get(key, defaults.get(key)) != now.settings.get(key, defaults.get(key))
    ]
    inputs = sorted({*recorded.inputs, *now.inputs})
    return different + [name for name in inputs if recorded.inputs.get(name) != now.inputs.get(name)]
