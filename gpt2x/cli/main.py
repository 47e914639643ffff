"""The entry point of the command line: runs the command and returns its exit code."""

import atexit
import errno
import gc
import io
import os
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TypeGuard

from gpt2x import __version__
from gpt2x.cli import hydra_app
from gpt2x.cli.exit_codes import ExitCode
from gpt2x.cli.job import run_job
from gpt2x.cli.messages import complain, complaints, message_of, show_bug, unwritable
from gpt2x.cli.overrides import checked, implies_sweep
from gpt2x.cli.plugins import end_workers
from gpt2x.cli.presets import refuse_ambiguous
from gpt2x.cli.prompt_axis import split_axis
from gpt2x.cli.sweep_job import SweepJob
from gpt2x.errors import UserError
from gpt2x.paths import launch_directory_exists, output
from gpt2x.runs.found import Found
from gpt2x.runs.job import Status


def main() -> int:
    """Runs `gpt2x` with sys.argv; returns the exit code."""
    gc.disable()  # objects created during import live for the whole process; scanning them only slows start-up
    atexit.register(gc.freeze)  # for the same reason: the exit would scan all of torch, for a quarter of a second
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra raises instead of printing and exiting
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without UTF-8 is no reason to lose a run
    output.lost = None
    complaints.clear()
    if "--version" in sys.argv[1:]:
        return max(_guarded(_print_version), _end_output())
    # To the microsecond, since two runs that start in the same second must not share a folder.
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    launched = hydra_app.launched = hydra_app.Launched()
    code = _guarded(lambda: _launch(stamp))
    end_workers()
    sweep = launched.sweep
    if sweep is not None:
        collected = _guarded(lambda: _collect(sweep, launched.jobs, is_complete=code is ExitCode.DONE))
        code = max(code, collected)
    launched.remove_empty()
    return max(code, _end_output())


def _print_version() -> ExitCode:
    print(f"gpt2x {__version__}")
    return ExitCode.DONE


def _end_output() -> ExitCode:
    """Writes what is still to be printed. It is an error if a part of the output was lost."""
    try:
        if sys.stdout is not None:  # which it is if the shell has closed it
            sys.stdout.flush()
    except OSError as error:
        output.give_up(error)
    if output.lost is None:
        return ExitCode.DONE
    complain(f"cannot write to standard output: {output.lost}; results that were written to files are complete")
    return ExitCode.USER_ERROR


def _launch(stamp: str) -> ExitCode:
    if not launch_directory_exists():
        raise UserError("the folder in which gpt2x was started no longer exists; change to another one (cd DIR)")
    arguments = hydra_app.parse_arguments(sys.argv[1:])
    if not arguments.shell_completion:
        overrides = checked(arguments.overrides, arguments.multirun)
        if arguments.config_dir is not None:
            refuse_ambiguous(overrides, Path(arguments.config_dir))
        hydra_app.launched.prompts, arguments.overrides = split_axis(overrides)
        if implies_sweep(overrides):
            hydra_app.make_multirun(arguments)
    hydra_app.launch(arguments, run_job, stamp)
    return hydra_app.launched.exit_code


def _collect(sweep: Path, jobs: list[SweepJob], is_complete: bool) -> ExitCode:
    """Writes the tables of a sweep from its job folders; returns the exit code for the jobs of this command.

    Raises UserError if the sweep is complete and had no jobs.
    """
    from gpt2x.reports.console import show_folder
    from gpt2x.reports.search import best_of, show_best
    from gpt2x.reports.sweep import show_sweep
    from gpt2x.runs.collect import collect_sweep, discard_empty
    from gpt2x.tasks.registry import TABLES

    objective = hydra_app.launched.objective
    collected = collect_sweep(sweep, TABLES)
    asked_for = {job.folder.name for job in jobs if job.found is not None}  # None: the folder holds another job
    searched = [each for each in collected if each.name in asked_for]
    if all(each.state is Status.WAITING for each in collected):
        discard_empty(sweep)
        if not is_complete:
            return ExitCode.DONE  # apart from the error that has kept all jobs from being started
    else:
        show_sweep(collected, objective)
        if objective is not None:
            show_best(searched, objective)
        show_folder(sweep)
    if is_complete and not jobs:
        raise UserError("the sweep has no jobs: one of its settings has no value, such as range(1,1)")
    if objective is not None and jobs and best_of(searched, objective) is None:
        complain(f"the search has no result: no job that is done has computed {objective.name}")
        return max(_exit_code(collected, jobs), ExitCode.USER_ERROR)
    return _exit_code(collected, jobs)


def _exit_code(collected: list[Found], jobs: list[SweepJob]) -> ExitCode:
    """JOBS_FAILED if a job of this command has not ended well, or if any job of the sweep cannot be read."""
    names = {job.folder.name for job in jobs}
    own = [each for each in collected if each.name in names]
    unreadable = any(each.state is Status.FAILED and not each.job.task for each in collected)
    # A job may have been refused because its folder, which the user has named, holds another one.
    refused = any(job.found is None for job in jobs)
    if unreadable or refused or any(each.state not in (Status.DONE, Status.SKIPPED) for each in own):
        return ExitCode.JOBS_FAILED
    return ExitCode.NO_PARITY if any(each.job.passed is False for each in own) else ExitCode.DONE


def _guarded(work: Callable[[], ExitCode]) -> ExitCode:
    """Does the work and returns its exit code. Reports an error in one line on stderr, a bug with its traceback."""
    try:
        return work()
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:
        if _is_of_output(error):
            output.give_up(error)
            return ExitCode.DONE
        message = message_of(error)
        if message is None and isinstance(error, OSError):  # jobs report their own: Hydra could not make a folder
            message = unwritable(error)
        if message is None:
            show_bug(error)
            return ExitCode.BUG
        complain(message)
        return ExitCode.USER_ERROR


def _is_of_output(error: Exception) -> TypeGuard[OSError]:
    """Whether help or settings could not be printed. In a sweep, it is Hydra's multirun.yaml that cannot be written."""
    kinds = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
    if not isinstance(error, OSError) or error.filename is not None or error.errno not in kinds:
        return False
    return error.errno == errno.EPIPE or hydra_app.launched.sweep is None
