"""Many jobs as one: jobs.csv and the joined tables of a sweep, or of any runs, from their folders alone."""

import csv
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from gpt2x.config.tasks import is_descriptive
from gpt2x.paths import remove_temporaries, write_lines
from gpt2x.prompts import STANDARD_INPUT
from gpt2x.runs.found import Found, look, waiting
from gpt2x.runs.job import JOB, Identity, Job, Status
from gpt2x.runs.results import has_results
from gpt2x.runs.sweep import SWEEP, locked_sweep, planned_jobs
from gpt2x.runs.tables import columns_of, to_csv, write_rows

JOBS = "jobs.csv"
_FROM = {"weights": ("weights.path",), "prompt": ("prompts_file", "prompt_id")}
"""Input of a job -> the settings that say where it is, if they are not the one that has its name."""


@dataclass(frozen=True)
class JobRow:
    """jobs.csv: one row per job of a sweep, or per run that was collected."""

    job: str
    """The job's folder: a hash of its settings and of the weights' content."""
    overrides: str
    status: str
    """done | failed | skipped (does not fit in memory) | interrupted | killed | running | damaged (its results are
    not those that it wrote) | waiting (not started)."""
    attempts: int
    """How often the job has been started."""
    error: str | None
    seconds: float | None
    notes: str | None
    stale: str | None
    """Why the job, which is done, would give other results now."""
    objective: float | None
    """The number that a search optimizes (runs/README.md, Search)."""


def collect_sweep(folder: Path, tables: Mapping[str, type]) -> list[Found]:
    """Writes jobs.csv and the jobs' tables, one below the other, into the folder of a sweep; returns the jobs.

    Raises UserError if a file cannot be read or written.
    """
    with locked_sweep(folder):
        remove_temporaries(folder, (SWEEP, JOBS, *tables))
        jobs = jobs_of(folder, tables)
        if jobs:
            write_tables(folder, jobs, tables)
    return jobs


def discard_empty(folder: Path) -> None:
    """Removes what a sweep leaves that could not start."""
    for name in (SWEEP, JOBS, "multirun.yaml"):  # the latter is Hydra's
        (folder / name).unlink(missing_ok=True)


def jobs_of(folder: Path, tables: Mapping[str, type]) -> list[Found]:
    """The jobs of a sweep: first folders that sweep.json does not list, then those that it lists, in its order.

    A run on its own that lies in the same folder is not part of the sweep. A job that another one has replaced, which
    differs from it only in the content of its input files and is later in the order, is stale.
    """
    order = {each.job: each for each in planned_jobs(folder)}
    folders = [Path(each.path) for each in os.scandir(folder) if each.is_dir()]
    looked = (look(each, is_read=tables.__contains__) for each in folders)
    found = {each.name: each for each in looked if each is not None and each.job.number is not None}
    others = [job for name, job in found.items() if name not in order]
    jobs = sorted(others, key=lambda each: (each.job.invocation, each.job.number, each.name))
    for name, planned in order.items():
        job = found.get(name) or waiting(folder / name, planned.overrides)
        if planned.chosen:  # paths of input files, which the last command may have given other names
            job = replace(job, job=replace(job.job, chosen=job.job.chosen | planned.chosen))
        jobs.append(replace(job, stale=planned.stale or job.stale) if job.state is Status.DONE else job)
    return list(_without_replaced(jobs))


def runs_below(folder: Path, tables: Mapping[str, type], without: Path) -> list[Found]:
    """The runs in and below a folder, in the order of their paths, apart from one."""
    jobs: list[Found] = []
    for path, folders, files in os.walk(folder):
        folders.sort()
        if JOB in files and SWEEP not in files and not without.samefile(path):
            name = Path(path).relative_to(folder).as_posix()
            found = look(Path(path), folder.resolve().name if name == "." else name, tables.__contains__)
            jobs += [found] if found is not None else []
    return jobs


def slot_of(identity: Identity, chosen: Mapping[str, Any]) -> str:
    """What a job and another one have in common that differs from it in the content of its input files alone.

    `chosen` are the values of the overrides, with the paths of those files, by dotted key. Another standard input is
    not a file that has changed.
    """
    paths = {name: [chosen.get(key) for key in _FROM.get(name, (name,))] for name in identity.inputs}
    typed = {name: identity.inputs[name] for name, path in paths.items() if STANDARD_INPUT in path}
    return json.dumps([identity.settings, paths, typed], sort_keys=True)


def _without_replaced(jobs: list[Found]) -> Iterator[Found]:
    """The jobs; one is stale if a later one that has replaced it is done."""
    slots = {each.name: slot_of(each.job.identity, each.job.chosen) for each in jobs if each.job.identity.inputs}
    last = {slots[each.name]: each.name for each in jobs if each.name in slots and each.state is Status.DONE}
    for each in jobs:
        name = last.get(slots.get(each.name, ""), each.name)
        if name == each.name:
            last.pop(slots.get(each.name, ""), None)  # later ones have not replaced it
        yield each if name == each.name else replace(each, stale=f"replaced by {name}", is_replaced=True)


def write_tables(folder: Path, jobs: list[Found], tables: Mapping[str, type]) -> None:
    """Writes jobs.csv, and the tables of the jobs that are done, with the jobs' settings as first columns.

    A table that no job has is removed. Raises UserError if a file cannot be written.
    """
    write_rows(folder / JOBS, JobRow, map(_row, jobs))
    done = [each for each in jobs if each.state is Status.DONE and not each.is_replaced]
    swept = swept_settings([each.job for each in jobs if each.job.task])
    for name, row_type in tables.items():
        found = [each for each in done if has_results(each.folder, each.job, name)]
        if found:
            _write_joined(folder / name, found, row_type, swept)
        else:
            (folder / name).unlink(missing_ok=True)


def _row(found: Found) -> JobRow:
    job = found.job
    overrides = shlex.join(job.overrides)
    of_run = (found.state, job.attempt, found.error, job.seconds, job.notes)
    return JobRow(found.name, overrides, *of_run, found.stale, job.objective)


class _MoreColumnsError(Exception):
    """A job's table has columns that those before it have not."""

    def __init__(self, columns: list[str]) -> None:
        self.columns = columns


def _write_joined(file: Path, found: list[Found], row_type: type, swept: list[str]) -> None:
    """Writes a joined table: job, settings, notes, the table's columns, and those that only some jobs have.

    A prompt's own column that has the name of a swept setting is called `prompt.NAME`.
    """
    columns = columns_of(row_type)
    while True:
        try:
            return write_lines(file, _joined(file.name, found, row_type, columns, swept))
        except _MoreColumnsError as error:  # few tables have such columns: it is quicker to begin again
            columns = error.columns


def _joined(name: str, found: list[Found], row_type: type, columns: list[str], swept: list[str]) -> Iterator[str]:
    """The lines of a joined table. Raises _MoreColumnsError if these columns are not all."""
    own = columns_of(row_type)
    settings = [key for key in swept if key not in own]  # a swept prompt is in its table already
    if any(each.job.notes is not None for each in found):
        settings.append("notes")
    numbers = _numbers(row_type)
    yield to_csv(["job", *settings, *(f"prompt.{each}" if each in settings else each for each in columns)], [])
    for each in found:
        prefix = to_csv(None, [[each.name, *(as_cell(setting_of(each.job, key)) for key in settings)]])
        with open(f"{each.folder}/{name}", encoding="utf-8", newline="") as stream:  # noqa: PTH123 (fast)
            records = csv.reader(stream)
            header = next(records, [])
            if header != columns and not set(header) <= set(columns):
                raise _MoreColumnsError(list(dict.fromkeys([*columns, *header])))
            places = [(header.index(column) if column in header else None, column in numbers) for column in columns]
            for record in records:
                cells = (_cell(record[i] if i is not None else "", is_number) for i, is_number in places)
                yield f"{prefix[:-2]},{','.join(cells)}\r\n"


def _numbers(row_type: type) -> set[str]:
    """The columns that hold numbers and truth values: to_csv does not quote them."""
    hints = get_type_hints(row_type)
    types = {field.name: (get_args(hints[field.name]) or (hints[field.name],))[0] for field in fields(row_type)}
    return {name for name, each in types.items() if not issubclass(each, str)}


def _cell(text: str, is_number: bool) -> str:
    """A field of a CSV as to_csv wrote it."""
    return text if is_number and text else '"' + text.replace('"', '""') + '"'


def swept_settings(jobs: list[Job]) -> list[str]:
    """Keys of the overrides that differ between jobs, apart from the notes, which have a column of their own.

    Of jobs that have not been started, only the overrides are known.
    """

    def differs(key: str) -> bool:
        values = [setting_of(job, key) for job in jobs if job.task or key in job.chosen]
        return any(value != values[0] for value in values)

    keys = dict.fromkeys(key for job in jobs for key in job.chosen if not is_descriptive(key))
    return [key for key in keys if differs(key)]


def setting_of(job: Job, key: str) -> Any:
    """The value of a setting, whether an override has set it or not; None for a group that no override has chosen."""
    return job.notes if key == "notes" else job.settings.get(key)


def short_names(keys: list[str]) -> dict[str, str]:
    """Key -> the last part of it, or the whole key where two keys have the same last part."""
    leaves = [key.rpartition(".")[2] for key in keys]
    return {key: leaf if leaves.count(leaf) == 1 else key for key, leaf in zip(keys, leaves, strict=True)}


def as_cell(value: Any) -> Any:
    """The value of a setting for a table: lists and dictionaries as JSON."""
    return value if isinstance(value, (str, int, float, type(None))) else json.dumps(value, ensure_ascii=False)
