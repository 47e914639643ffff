"""Jobs that ended without being able to say so: the command that waited for them writes their job.json."""

import time
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from gpt2x.cli.exit_codes import ExitCode
from gpt2x.cli.job import describe, value_of
from gpt2x.cli.messages import one_line
from gpt2x.runs.folder import opened
from gpt2x.runs.job import Job, Status
from gpt2x.runs.lock import InUseError
from gpt2x.tasks.registry import TASKS

_LONGEST_END = 90
"""Seconds until the process of a job is gone that Slurm says has ended: 30 for its last work, and some to kill it."""


def record_lost(reason: str, status: Status, cfg: DictConfig) -> ExitCode:
    """Records why a job ended, unless it has done so itself.

    A function of the kind that Hydra runs a job with. Raises UserError if the job's folder cannot be written, or if
    the process of the job does not end.
    """
    path = Path(HydraConfig.get().runtime.output_dir)
    now = describe(cfg)
    end = time.monotonic() + _LONGEST_END
    while True:
        try:
            return value_of(_record(path, now, reason, status))
        except InUseError:
            if time.monotonic() > end:
                raise
            time.sleep(1)


def _record(path: Path, now: Job, reason: str, status: Status) -> Job:
    """The content of the folder's job.json, which may be new."""
    task = TASKS[now.task]
    with opened(path, task.outputs, task.state) as folder:
        job = folder.previous
        if job is None or job.invocation != now.invocation:  # it has not begun
            now.attempt = job.attempt if job is not None else 0
            job = now
        if job.status is Status.RUNNING:
            job.status, job.error = status, one_line(reason)
            job.write(path)
        return job
