"""Jobs that ended without being able to say so: whoever waited for them writes their job.json."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from gpt2x.cli.exit_codes import ExitCode
from gpt2x.cli.job import describe
from gpt2x.cli.messages import complain, one_line
from gpt2x.errors import UserError
from gpt2x.paths import shown
from gpt2x.runs.folder import opened
from gpt2x.runs.job import Status
from gpt2x.tasks.registry import TASKS


def record_lost(reason: str, was_killed: bool, cfg: DictConfig) -> ExitCode:
    """Records why a job ended, unless it has done so itself, and prints it.

    Without `was_killed`, the job failed before its task began. A function of the kind that Hydra runs a job with.
    """
    path = Path(HydraConfig.get().runtime.output_dir)
    now = describe(cfg)
    try:
        task = TASKS[now.task]
        with opened(path, task.outputs, task.state) as folder:
            job = folder.previous
            if job is None or job.invocation != now.invocation:  # it has never begun
                now.attempt = job.attempt if job is not None else 0
                job = now
            if job.status is Status.RUNNING:
                job.status = Status.KILLED if was_killed else Status.FAILED
                job.error = one_line(reason)
                job.write(path)
    except UserError as error:  # of the folder, which another process may own by now
        reason = f"{reason}; {error}"
    complain(f"{shown(path)}: {reason}")
    return ExitCode.JOBS_FAILED
