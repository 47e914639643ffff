"""One job, in whichever process a launcher runs it: from a composed configuration to a run folder."""

import gc
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from gpt2x.checkpoints.digest import begin_digesting
from gpt2x.cli.composition import chosen, default_settings, stamp, task_overrides, to_config, to_container
from gpt2x.cli.exit_codes import ExitCode
from gpt2x.cli.identity import identifying_settings, identity_of
from gpt2x.cli.messages import complain, message_of, one_line, say, show_bug
from gpt2x.cli.overrides import key_of
from gpt2x.config.settings import flatten, non_default, refuse_unused
from gpt2x.config.tasks import SCHEMAS
from gpt2x.errors import DoesNotFitError, UserError
from gpt2x.memory import check_room_for, is_out_of_memory, start_threads
from gpt2x.paths import launch_directory_exists, shown, write_text
from gpt2x.process import fix_rounding
from gpt2x.runs import tables
from gpt2x.runs.folder import RunFolder, opened
from gpt2x.runs.job import Identity, Job, Status
from gpt2x.runs.manifest import environment
from gpt2x.runs.sweep import note_refusal
from gpt2x.tasks.registry import TASKS, Task


def run_job(cfg: DictConfig) -> ExitCode:
    """Runs one job and returns its exit code; everything else about the job is recorded in its run folder.

    Errors are reported on stderr and are not raised, as they must not stop the other jobs of a sweep.
    KeyboardInterrupt is raised.
    """
    path = Path(HydraConfig.get().runtime.output_dir)
    try:
        job = _describe(cfg)
        task = TASKS[job.task]
        with opened(path, task.outputs, task.state) as folder:
            return _run_in(folder, cfg, job, task)
    except (UserError, OmegaConfBaseException, OSError) as error:  # the last: the folder cannot be listed
        complain(message_of(error) or str(error))
        _note_refusal(path)
        return ExitCode.USER_ERROR


def _run_in(folder: RunFolder, cfg: DictConfig, job: Job, task: Task) -> ExitCode:
    """Runs the job in its folder, which this process owns, and records how it ended."""
    try:
        _run(cfg, folder, job)
    except BaseException as raised:
        error = _explained(raised, task, folder.path)
        message = message_of(error)
        _record_failure(folder, job, error, message, in_sweep=job.number is not None)
        if message is not None:
            complain(message)
            return ExitCode.USER_ERROR
        if isinstance(error, KeyboardInterrupt):
            if folder.is_unfinished:
                say(f"interrupted; the same command continues in hydra.run.dir={shown(folder.path)}")
            raise
        show_bug(error)
        return ExitCode.BUG
    return ExitCode.DONE if job.passed else ExitCode.NO_PARITY


def _describe(cfg: DictConfig) -> Job:
    """The job before it starts. Settings with an interpolation that cannot be resolved are described unresolved."""
    hydra = HydraConfig.get()
    try:
        container = to_container(cfg)
    except OmegaConfBaseException:
        container = to_container(cfg, resolve=False)
    overrides = task_overrides(hydra)
    return Job(
        task=container["task"]["name"],
        overrides=overrides,
        chosen=chosen(cfg, [key_of(override) for override in overrides]),
        identity=Identity(identifying_settings(container)),
        notes=container["notes"],
        invocation=stamp(),
        number=int(hydra.job.num) if hydra.mode == RunMode.MULTIRUN else None,
    )


def _run(cfg: DictConfig, folder: RunFolder, job: Job) -> None:
    """Checks the settings, runs the task, and writes timing.csv, manifest.json and job.json."""
    start = time.perf_counter()
    _keep_another_task(folder, job.task)
    if not folder.is_unfinished:
        folder.begin(job)
    container = to_container(cfg)
    _refuse_unused(job, container)
    config = to_config(cfg)
    task = TASKS[job.task]
    fix_rounding()
    check_room_for("torch")
    digesting = begin_digesting(config.model, config.weights)
    run = task.load()
    start_threads()
    if not gc.isenabled():  # objects created during import live for the whole process: they are never scanned
        gc.freeze()
        gc.enable()
    digesting.join()
    job.identity = identity_of(container)
    folder.check_same_run(job.identity, config.task.neutral, lambda: default_settings(job.task))
    folder.begin(job)
    from gpt2x.reports.console import show_folder

    outcome = run(config, config.task, folder.path)
    seconds = time.perf_counter() - start
    rows = [tables.TimingRow(stage, took) for stage, took in (outcome.timings | {"total": seconds}).items()]
    tables.write_rows(folder.path / "timing.csv", tables.TimingRow, rows)
    facts = {"overrides": job.overrides, "settings": job.chosen, "status": Status.DONE, "error": None}
    facts |= {"config": container} | environment() | {"seconds": seconds} | outcome.facts()
    write_text(folder.path / "manifest.json", json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    job.passed = outcome.passed
    job.end(Status.DONE)
    job.write(folder.path)
    if job.number is None:  # a sweep ends with its own folder
        show_folder(folder.path, on_stderr=outcome.prints_text_alone)


def _explained(error: BaseException, task: Task, path: Path) -> BaseException:
    """A UserError for what went wrong outside of gpt2x, whatever library noticed it; else the error itself."""
    if isinstance(error, UserError):
        return error
    if is_out_of_memory(error):
        error.__traceback__ = None  # its frames hold the tensors: what follows needs memory, too
        return DoesNotFitError(f"task={task.name} does not fit in memory; use {task.saves_memory}")
    if isinstance(error, FileNotFoundError) and not (path.is_dir() and launch_directory_exists()):
        return UserError(f"{shown(path)}: it, or the directory of the command, was removed while the job ran")
    return error


def _keep_another_task(folder: RunFolder, task: str) -> None:
    """Raises UserError if the folder holds an unfinished run of another task, which needs its job.json to go on."""
    previous = folder.previous
    if previous is None or previous.task == task or previous.status is Status.DONE or previous.task not in TASKS:
        return
    state = TASKS[previous.task].state
    if state is not None and (folder.path / state).is_file():
        raise UserError(f"{shown(folder.path)}: holds an unfinished task={previous.task}; give another hydra.run.dir")


def _record_failure(folder: RunFolder, job: Job, error: BaseException, message: str | None, in_sweep: bool) -> None:
    """Records how the job ended, and removes what it wrote. After a bug the files stay, for somebody to examine."""
    kinds = {KeyboardInterrupt: Status.INTERRUPTED, DoesNotFitError: Status.SKIPPED}
    reason = message or f"{type(error).__name__}: {error}".removesuffix(": ")
    job.end(kinds.get(type(error), Status.FAILED), one_line(reason))
    is_bug = message is None and not isinstance(error, KeyboardInterrupt)
    if folder.begun:
        folder.record(job)
    else:
        _note_refusal(folder.path)
    if not is_bug:
        folder.clear(keep_job=in_sweep)


def _note_refusal(path: Path) -> None:
    """Notes a job that could not use its folder, if it belongs to a sweep. This must not hide why it could not."""
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN:
        with suppress(UserError):
            note_refusal(Path(hydra.runtime.cwd, hydra.sweep.dir), stamp(), path.name)


def _refuse_unused(job: Job, container: dict[str, Any]) -> None:
    """Raises UserError for a setting that the task does not use, whether an override or a preset has set it."""
    refuse_unused(job.task, job.chosen)
    preset = HydraConfig.get().runtime.choices.get("experiment") not in (None, "null")
    # An option of a group that the task uses in part may set the other part. The defaults cost 50 ms the first time.
    in_part = any(used.startswith(f"{key}.") for used in SCHEMAS[job.task].uses for key in job.chosen)
    if preset or job.number is not None or in_part:
        refuse_unused(job.task, non_default(flatten(container), default_settings(job.task)))
