"""What is found in the folder of a job: what it is, how it stands, and whether it is stale."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gpt2x.errors import UserError
from gpt2x.runs.code import code_of, difference
from gpt2x.runs.job import Identity, Job, Status, read_job
from gpt2x.runs.lock import LOCK, owner_of
from gpt2x.runs.results import damage


@dataclass(frozen=True)
class Found:
    """A job and its state, as its folder shows it."""

    name: str
    """As the tables name it: the folder's name in a sweep, or its path below the folder whose runs are read."""
    folder: Path
    job: Job
    state: Status
    error: str | None = None
    """Why the job failed, or what is wrong with its results."""
    stale: str | None = None
    """Why the results of a job that is done are not those that it would give now, or which job has replaced it."""
    is_replaced: bool = False
    """Whether a later job, which differs only in the content of its input files, is done."""

    @property
    def failed(self) -> bool:
        """Whether the job has ended without results, although it fits in memory, and no other has replaced it."""
        return not self.is_replaced and self.state in (Status.FAILED, Status.KILLED, Status.INTERRUPTED, Status.DAMAGED)


def look(folder: Path, name: str | None = None, is_read: Callable[[str], bool] = lambda file: True) -> Found | None:
    """The job of a folder; None if it has no job.json.

    A job whose job.json cannot be read has failed with this error, and has no task. The sizes of a job's results are
    checked, and the content of the files that `is_read` accepts by their name.
    """
    name = name or folder.name
    try:
        job = read_job(folder)
    except UserError as error:
        return Found(name, folder, _nothing([]), Status.FAILED, str(error))
    if (job is None or job.status is not Status.DONE) and _is_held(folder, job):
        return Found(name, folder, job or _nothing([]), Status.RUNNING)
    if job is not None and job.status is Status.RUNNING:
        job = read_job(folder)  # it may have ended meanwhile
    if job is None:
        return None
    if job.status is Status.RUNNING:
        return Found(name, folder, job, Status.KILLED)
    if job.status is not Status.DONE:
        return Found(name, folder, job, job.status, job.error)
    wrong = damage(folder, job, is_read)
    if wrong is not None:
        return Found(name, folder, job, Status.DAMAGED, wrong)
    return Found(name, folder, job, Status.DONE, stale=difference(job.code, code_of(job.identity.settings)))


def waiting(folder: Path, overrides: list[str]) -> Found:
    """A job of a sweep that has not been started."""
    return Found(folder.name, folder, _nothing(overrides), Status.WAITING)


def _is_held(folder: Path, job: Job | None) -> bool:
    """Whether a process, on this host or another, runs a job in the folder.

    Where the file system has no locks, job.json says so; a process on another host counts as running there.
    """
    try:
        return owner_of(folder / LOCK) is not None
    except OSError:
        return job is not None and job.state is Status.RUNNING


def _nothing(overrides: list[str]) -> Job:
    return Job("", overrides, {}, Identity({}), number=0, attempt=0)
