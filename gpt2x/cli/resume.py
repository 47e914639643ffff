"""A sweep that resumes: of the jobs that a launcher is given, it starts those that are not done, in rounds."""

import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from gpt2x.cli.composer import Composer
from gpt2x.cli.composition import given, stamp, sweep_settings, without_sweep
from gpt2x.cli.copies import hydra_copies_less
from gpt2x.cli.exit_codes import ExitCode
from gpt2x.cli.identity import hash_of, identity_of
from gpt2x.cli.job import stop_file
from gpt2x.cli.messages import complain, one_line, say
from gpt2x.cli.sweep_job import SweepJob, described
from gpt2x.errors import UserError
from gpt2x.paths import shown
from gpt2x.runs.collect import jobs_of, slot_of
from gpt2x.runs.found import Found
from gpt2x.runs.job import Status
from gpt2x.runs.sweep import Planned, plan_jobs

_SECONDS_BETWEEN_LOOKS = 0.5


class Resuming(Launcher):
    """Gives a launcher of Hydra the jobs that are not done, until they are, or have failed too often.

    What it learns about jobs it reads from their folders, so it works with every launcher. Other commands may run
    jobs of the same sweep at the same time: a job that one of them runs is left to it, and awaited.
    """

    def __init__(self, real: Launcher, composer: Composer) -> None:
        self.real, self.composer = real, composer
        config = composer.sweep
        self.root = Path(str(config.hydra.sweep.dir)).absolute()
        self.settings = sweep_settings(config)
        self.is_search = config.hydra.runtime.choices["hydra/sweeper"] != "basic"
        """Whether the sweeper asks for jobs one after the other."""
        self.jobs: list[SweepJob] = []
        """All jobs that the sweeper has asked for."""

    def setup(self, **_: Any) -> None:
        """Does nothing: the real launcher has been set up."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs what is to be run of these jobs, and returns what run_job returns for each of them.

        Raises UserError if `fail_fast` ends the sweep, and what the real launcher raises if it starts no job.
        """
        from gpt2x.reports.console import steps  # imports rich

        looked_at = steps(job_overrides, len(job_overrides), "looking for jobs that are done")
        jobs = [self._described(overrides, number) for number, overrides in enumerate(looked_at, initial_job_idx)]
        folders, tries = {job.folder for job in jobs}, {job.folder: job.tries for job in self.jobs}
        for job in jobs:
            self._use_earlier(job, folders)
            job.tries = tries.get(job.folder, 0)
        different = _different(jobs)
        pending = self._left(different)
        self.jobs += jobs
        plan_jobs(self.root, [self._planned(job) for job in different])
        if len(pending) < len(different) and not self.is_search:
            say(f"{len(different) - len(pending)} of {len(different)} jobs are done already")
        while pending:
            self._run_some(pending)
            pending = self._left(pending)
        for job in jobs:
            if job.found is None:  # two of the jobs are the same, or the job has not been started
                job.look()
        changed = sum(job.found is None and self._has_changed(job) for job in different)
        if changed:
            plural = "s" if changed > 1 else ""
            complain(f"the input files of {changed} job{plural} have changed meanwhile: start the sweep again")
        return [_returned(job) for job in jobs]

    def _described(self, overrides: Sequence[str], number: int) -> SweepJob:
        settings, name = self.composer.compose(overrides, number)
        job = described(settings, name, overrides, number, self.root)
        job.look()
        return job

    def _use_earlier(self, job: SweepJob, folders: set[Path]) -> None:
        """Has a job that is not done use the folder of an earlier one from which only its input files differ.

        A folder that is that of another job of this command is none of these.
        """
        if job.found is not None or job.identity is None or not job.identity.inputs or self.settings.rerun:
            return
        earlier = self._done.get(slot_of(job.identity, job.chosen))
        if earlier is None or earlier.folder in folders:
            return
        now, before = job.identity.inputs, earlier.job.identity.inputs
        names = [key for key in now if now[key] != before.get(key)]
        job.changed = f"other content of {', '.join(names)}" if names else None
        job.folder = earlier.folder
        job.look()

    def _has_changed(self, job: SweepJob) -> bool:
        """Whether the job's input files have other content than before the sweep: then it is another job."""
        settings, _ = self.composer.compose(job.overrides, job.number)
        return settings is not None and job.identity is not None and identity_of(settings).inputs != job.identity.inputs

    def _planned(self, job: SweepJob) -> Planned:
        overrides = without_sweep(given(job.overrides))
        slot = hash_of(slot_of(job.identity, job.chosen)) if job.identity is not None else None
        return Planned(job.folder.name, overrides, job.outdated if self._is_done(job) else None, job.chosen, slot)

    @cached_property
    def _done(self) -> dict[str, Found]:
        """The jobs that were done in this folder before the command, by their slots: of several, the last."""
        jobs = [each for each in jobs_of(self.root, {}) if each.state is Status.DONE and not each.is_replaced]
        return {slot_of(each.job.identity, each.job.chosen): each for each in jobs}

    def _is_done(self, job: SweepJob) -> bool:
        """Whether the job, at the last look, needs no run. What this command has run is not stale."""
        if job.found is None or job.found.state is not Status.DONE:
            return False
        return job.tries > 0 or self.settings.rerun is None or job.stale is None

    def _run_some(self, pending: list[SweepJob]) -> None:
        """Starts the jobs that no other command runs; if there are none, waits until one of those ends."""
        idle = [job for job in pending if not _is_running(job.found)]
        if idle:
            self._start(sorted(idle, key=lambda job: job.tries))
            return
        say(f"waiting for {len(pending)} job{'s' if len(pending) > 1 else ''} that another command runs")
        while all(_is_running(job.look()) for job in pending):
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def _start(self, jobs: list[SweepJob]) -> None:
        """One call of the real launcher. Raises what it raises if it has started none of the jobs."""
        before = [job.started for job in jobs]
        stopping = stop_file(self.root, stamp())
        try:
            with hydra_copies_less():
                ended = self.real.launch([job.overrides for job in jobs], _Numbers([job.number for job in jobs]))
            for each in ended:
                _ = each.return_value  # raises what has escaped from the job
        except Exception as error:
            for job in jobs:
                job.look()
            if [job.started for job in jobs] == before:
                raise
            complain(f"the launcher ended with {type(error).__name__}: {one_line(str(error))}")
        finally:
            stopping.unlink(missing_ok=True)
        for job in jobs:
            job.look()
        started = [job for job, time in zip(jobs, before, strict=True) if job.started != time or _is_running(job.found)]
        for job in started or jobs:  # if none was started, another round would start none
            job.tries += not started or _is_own(job.found)

    def _left(self, pending: list[SweepJob]) -> list[SweepJob]:
        """The jobs that another round is for. Raises UserError if `fail_fast` lets there be no other."""
        left = [job for job in pending if not (self._is_done(job) or self._is_skipped(job))]
        failed = [job for job in left if self._has_failed(job)]
        if failed and self.settings.fail_fast:
            raise UserError("a job has failed, and fail_fast=true starts no more")
        return [job for job in left if not self._has_failed(job)] if failed else left

    def _is_skipped(self, job: SweepJob) -> bool:
        """Whether this command has found that the job does not fit in memory."""
        return job.tries > 0 and job.found is not None and job.found.state is Status.SKIPPED

    def _has_failed(self, job: SweepJob) -> bool:
        """Whether the job has ended without results, at the last look, and is not tried again."""
        if job.tries == 0 or _is_running(job.found):
            return False
        cannot_succeed = job.found is not None and job.found.job.exit_code == ExitCode.USER_ERROR
        return cannot_succeed or job.tries > self.settings.retries


class _Numbers(int):
    """The numbers of the jobs that a launcher is given, which calls the i-th of them `initial_job_idx + i`.

    So each job keeps its number, which its settings may contain, although the launcher is not given all jobs.
    """

    def __new__(cls, numbers: list[int]) -> "_Numbers":
        made = super().__new__(cls, numbers[0])
        made.numbers = numbers
        return made

    numbers: list[int]

    def __add__(self, place: int) -> int:
        return self.numbers[place]


def _is_running(found: Found | None) -> bool:
    return found is not None and found.state is Status.RUNNING


def _is_own(found: Found | None) -> bool:
    """Whether this command has started the job last."""
    return found is not None and found.job.invocation == stamp()


def _different(jobs: list[SweepJob]) -> list[SweepJob]:
    """One job per folder. Raises UserError for a folder that several jobs would write into."""
    found: dict[Path, SweepJob] = {}
    for job in jobs:
        other = found.setdefault(job.folder, job)
        if other.identity != job.identity:
            raise UserError(
                f"{shown(job.folder)} would be the folder of several jobs: hydra.sweep.subdir must name what differs"
            )
    return list(found.values())


def _returned(job: SweepJob) -> JobReturn:
    """What the sweeper gets for a job, from its folder."""
    made = JobReturn(overrides=list(job.overrides), status=JobStatus.COMPLETED)
    made.return_value = job.found.job.objective if job.found is not None and job.found.state is Status.DONE else None
    return made
