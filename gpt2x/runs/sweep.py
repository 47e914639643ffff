"""The folder of a sweep: sweep.json, and the tables of all its jobs, collected from the job folders alone."""

import json
import shlex
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2x.config.tasks import is_descriptive
from gpt2x.errors import UserError
from gpt2x.paths import remove_temporaries, shown, write_text
from gpt2x.runs.job import Identity, Job, Status, read_job
from gpt2x.runs.lock import locked
from gpt2x.runs.tables import columns_of, read_with_extra, row_values, to_csv, write_rows

SWEEP, JOBS = "sweep.json", "jobs.csv"


@dataclass(frozen=True)
class JobRow:
    """jobs.csv: one row per job of a sweep."""

    job: str
    """The job's folder: a hash of its settings and of the weights' content."""
    overrides: str
    status: str
    """done | failed | skipped (does not fit in memory) | interrupted | killed | running."""
    attempts: int
    """How often the job has been started."""
    error: str | None
    seconds: float | None
    notes: str | None
    objective: float | None
    """The number that a search optimizes (runs/README.md, Search)."""


def begin_sweep(folder: Path, invocation: str, overrides: list[str]) -> None:
    """Adds a command to sweep.json, before its jobs start. Raises UserError if the file cannot be read or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{shown(folder)}: {error.strerror}; choose another folder with hydra.sweep.dir=DIR") from None
    with _locked(folder):
        content = _read(folder)
        content["invocations"].append({"stamp": invocation, "overrides": overrides, "refused": []})
        _write(folder, content)


def note_refusal(folder: Path, invocation: str, job: str) -> None:
    """Notes in sweep.json that a job of this command could not use its folder, whose job.json is of another run.

    Raises UserError if the file cannot be read or written.
    """
    with _locked(folder):
        content = _read(folder)
        for each in content["invocations"]:
            if each["stamp"] == invocation:
                each["refused"].append(job)
        _write(folder, content)


def all_recorded(folder: Path, invocation: str) -> bool:
    """Whether all jobs of this command have described themselves in their folders; False if sweep.json was removed.

    Raises UserError if sweep.json cannot be read.
    """
    return any(each["stamp"] == invocation and not each["refused"] for each in _read(folder)["invocations"])


def jobs_of(folder: Path) -> list[tuple[Path, Job]]:
    """The job folders of a sweep with their jobs: first those in sweep.json, in its order, then new ones.

    A job whose job.json cannot be read has failed with this error, and has no task.
    A run on its own that lies in the same folder is not part of the sweep.
    """
    known = {key: place for place, key in enumerate(_read(folder)["jobs"])}
    jobs = [(each, _job_in(each)) for each in sorted(folder.iterdir()) if each.is_dir()]
    found = [(each, job) for each, job in jobs if job is not None and job.number is not None]
    places = {each: (known.get(each.name, len(known)), job.invocation, job.number or 0) for each, job in found}
    return sorted(found, key=lambda pair: places[pair[0]])


def _job_in(folder: Path) -> Job | None:
    try:
        return read_job(folder)
    except UserError as error:
        return Job("", [], {}, Identity({}), number=0, attempt=0, status=Status.FAILED, error=str(error))


def collect_sweep(folder: Path, tables: Mapping[str, type]) -> list[Job]:
    """Writes jobs.csv, the jobs' tables one below the other, and the jobs' order; returns the jobs.

    The tables have the job, the swept settings and, if a job has any, the notes as first columns. A sweep that could
    not start leaves nothing. Raises UserError if a file cannot be read or written.
    """
    with _locked(folder):
        remove_temporaries(folder, (SWEEP, JOBS, *tables))
        jobs = jobs_of(folder)
        if jobs:
            _collect(folder, jobs, tables)
        else:
            for name in (SWEEP, "multirun.yaml"):  # the latter is Hydra's
                (folder / name).unlink(missing_ok=True)
    return [job for _, job in jobs]


def _collect(folder: Path, jobs: list[tuple[Path, Job]], tables: Mapping[str, type]) -> None:
    content = _read(folder) | {"jobs": [each.name for each, _ in jobs]}
    _write(folder, content)
    statuses = [
        JobRow(
            each.name,
            shlex.join(job.overrides),
            job.state,
            job.attempt,
            job.error,
            job.seconds,
            job.notes,
            job.objective,
        )
        for each, job in jobs
    ]
    write_rows(folder / JOBS, JobRow, statuses)
    swept = swept_settings([job for _, job in jobs if job.task])
    done = [(each, job) for each, job in jobs if job.status is Status.DONE]
    for name, row_type in tables.items():
        found = [(each, job) for each, job in done if (each / name).is_file()]
        rows = [(each.name, job, *row) for each, job in found for row in read_with_extra(each / name, row_type)]
        if rows:
            write_text(folder / name, _joined(rows, row_type, swept))


def _locked(folder: Path) -> AbstractContextManager[None]:
    """Waits until no other command reads or writes the files at the sweep's root."""
    return locked(folder / ".sweep.lock", "hydra.sweep.dir", wait=True)


def _joined(rows: list[tuple[str, Job, Any, dict[str, str]]], row_type: type, swept: list[str]) -> str:
    """Rows, each with its job's name, its job and its extra columns, as CSV. It has the extra columns of all jobs."""
    extra = list(dict.fromkeys(column for *_, values in rows for column in values))
    columns = [*columns_of(row_type), *extra]
    settings = [key for key in swept if key not in columns]  # a swept prompt is in its table already
    if any(job.notes is not None for _, job, *_ in rows):
        settings.append("notes")
    table = (
        [name, *(as_cell(_value_of(job, key)) for key in settings), *row_values(row), *map(values.get, extra)]
        for name, job, row, values in rows
    )
    return to_csv(["job", *settings, *columns], table)


def swept_settings(jobs: list[Job]) -> list[str]:
    """Keys of the overrides that differ between jobs, apart from those that only describe them."""
    keys = dict.fromkeys(key for job in jobs for key in job.chosen if not is_descriptive(key))
    return [key for key in keys if any(job.chosen.get(key) != jobs[0].chosen.get(key) for job in jobs)]


def _value_of(job: Job, key: str) -> Any:
    """The value of an override, or the notes, which a preset may have set."""
    return job.notes if key == "notes" else job.chosen.get(key)


def as_cell(value: Any) -> Any:
    """The value of a setting for a table: lists and dictionaries as JSON."""
    return value if isinstance(value, (str, int, float, type(None))) else json.dumps(value, ensure_ascii=False)


def _read(folder: Path) -> dict[str, Any]:
    file = folder / SWEEP
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        invocations = [{"refused": [], **each} for each in content["invocations"]]
        if not all({"stamp", "overrides"} <= each.keys() for each in invocations):
            raise ValueError("an invocation without its stamp or its overrides")
        return {"invocations": invocations, "jobs": [str(job) for job in content["jobs"]]}
    except FileNotFoundError:
        return {"invocations": [], "jobs": []}
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{shown(file)}: cannot be read; give another hydra.sweep.dir") from None


def _write(folder: Path, content: dict[str, Any]) -> None:
    write_text(folder / SWEEP, json.dumps(content, indent=2, ensure_ascii=True) + "\n")
