"""A run folder: its owner, what it holds before a job, what the job may write, and what is removed if the job fails."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gpt2x.errors import UserError
from gpt2x.paths import remove_temporaries, shown
from gpt2x.runs.job import JOB, Identity, Job, differences, read_job
from gpt2x.runs.lock import LOCK, locked
from gpt2x.runs.sweep import SWEEP

OF_EVERY_RUN = (JOB, "manifest.json", "timing.csv")


class RunFolder:
    """The folder of one job. `outputs` are the files and folders that the task may write.

    `state` is the file from which a killed run can be continued, if the task has one.
    """

    def __init__(self, path: Path, outputs: tuple[str, ...] = (), state: str | None = None) -> None:
        self.path, self.outputs, self.state = path, outputs, state
        self._before = {each for each in path.iterdir() if each.name != LOCK}
        self.previous = read_job(path)
        """The job that was in this folder before."""
        self.begun = False

    @property
    def is_unfinished(self) -> bool:
        """Whether the folder holds a run that can be continued."""
        return self.state is not None and (self.path / self.state).is_file()

    def begin(self, job: Job) -> None:
        """Writes job.json. Raises UserError if the file cannot be written."""
        job.attempt = self.previous.attempt + 1 if self.previous is not None else 1
        job.write(self.path)
        self.begun = True

    def record(self, job: Job) -> None:
        """Replaces job.json at the end of a job that failed. An error in writing must not hide why the job failed."""
        with suppress(UserError):
            job.write(self.path)

    def forget(self) -> None:
        """Leaves the files of the task alone in the folder: what it did is no run."""
        if self.previous is not None:
            self.previous.write(self.path)
        else:
            (self.path / JOB).unlink(missing_ok=True)

    def check_same_run(
        self, identity: Identity, neutral: tuple[str, ...], defaults: Callable[[], Mapping[str, Any]]
    ) -> None:
        """Raises UserError if the folder holds an unfinished run that is not this one.

        `neutral` are settings that may differ; `defaults` (flat) stand in for settings that only one of the two
        runs knows, as another version of gpt2x may have begun the run; it is called only if the runs differ.
        """
        if self.state is None or not self.is_unfinished:
            return
        if self.previous is None:
            state = shown(self.path / self.state)
            raise UserError(f"{state}: no {JOB} beside it says which run this is; give another hydra.run.dir")
        recorded, now = self.previous.identity.without(neutral), identity.without(neutral)
        if recorded == now:
            return
        changed = differences(recorded, now, defaults())
        if changed:
            raise UserError(
                f"{shown(self.path)}: begun with other settings ({', '.join(changed)}); give another hydra.run.dir"
            )

    def clear(self, keep_job: bool) -> None:
        """Removes what a failed job wrote, but no file that was there before.

        A run that can be continued keeps all its files. `keep_job` keeps job.json, for the table of the sweep.
        """
        if not self.path.exists() or self.is_unfinished:
            return
        for name in (*self.outputs, *OF_EVERY_RUN):
            path = self.path / name
            if path in self._before or (keep_job and name == JOB):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        if not keep_job and self.previous is not None:
            self.previous.write(self.path)


@contextmanager
def opened(path: Path, outputs: tuple[str, ...] = (), state: str | None = None) -> Iterator[RunFolder]:
    """The folder of one job, which this process owns while the context lasts.

    Raises UserError if another job runs in the folder, if it is the folder of a sweep, whose tables the job would
    replace, and if the folder cannot be written or its job.json be read.
    """
    if (path / SWEEP).is_file():
        raise UserError(f"{shown(path)}: holds a sweep; give another hydra.run.dir")
    with locked(path / LOCK, "hydra.run.dir"):
        remove_temporaries(path, (*outputs, *OF_EVERY_RUN, *([state] if state else [])))
        yield RunFolder(path, outputs, state)
