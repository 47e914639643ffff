"""One job, in whichever process a launcher runs it: from a composed configuration to a run folder."""

import gc
import json
import time
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from gpt2x.checkpoints.digest import begin_digesting
from gpt2x.cli.composition import (
    chosen,
    default_settings,
    stamp,
    task_overrides,
    to_config,
    to_container,
    without_sweep,
)
from gpt2x.cli.exit_codes import ExitCode
from gpt2x.cli.identity import identifying_settings, identity_of
from gpt2x.cli.messages import complain, message_of, one_line, say, show_bug
from gpt2x.cli.overrides import PROMPT_SOURCES, key_of
from gpt2x.config.settings import flatten, non_default, refuse_unused
from gpt2x.config.tasks import READERS, SCHEMAS
from gpt2x.config.tracking import TrackingConfig
from gpt2x.errors import DoesNotFitError, StoppedError, UserError
from gpt2x.memory import check_room_for, is_out_of_memory, start_threads
from gpt2x.paths import launch_directory_exists, shown, write_text
from gpt2x.process import fix_rounding
from gpt2x.runs import tables
from gpt2x.runs.code import code_of, difference
from gpt2x.runs.folder import RunFolder, opened
from gpt2x.runs.job import Identity, Job, Status, read_job
from gpt2x.runs.lock import InUseError
from gpt2x.runs.manifest import environment
from gpt2x.runs.results import damage, results_in
from gpt2x.runs.tracking import check_installed, track
from gpt2x.tasks.registry import TASKS, Task


def run_job(cfg: DictConfig) -> ExitCode | float | None:
    """Runs one job; everything else than what it returns is recorded in the job's run folder.

    Returns the exit code of a single run. Of a job of a sweep, returns what sweepers expect: the number to optimize,
    or None, which is a failed trial, if the job failed or has no such number.
    Errors are reported on stderr and are not raised, as they must not stop the other jobs of a sweep.
    KeyboardInterrupt is raised.
    """
    in_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    code, objective = _run_job(cfg)
    return objective if in_sweep else code


def _run_job(cfg: DictConfig) -> tuple[ExitCode, float | None]:
    """Runs one job; returns its exit code and the number that a search optimizes."""
    path = Path(HydraConfig.get().runtime.output_dir)
    try:
        job = describe(cfg)
        task = TASKS[job.task]
        stopping = _stop_file(cfg)
        if stopping is not None and stopping.exists():
            return ExitCode.INTERRUPTED, None
        with opened(path, task.outputs, task.state) as folder:
            if _is_done(folder, cfg, job):
                job = folder.previous or job
                return value_of(job), job.objective
            code = _run_in(folder, cfg, job, task)
        if stopping is not None and job.status not in (Status.DONE, Status.SKIPPED):
            stopping.touch()
        return code, job.objective
    except (UserError, OmegaConfBaseException, OSError) as error:  # the last: the folder cannot be listed
        if isinstance(error, InUseError) and _sweep() is not None:
            say(f"{error}".partition(";")[0] + ", and left to it")  # the command waits for it: see Resuming
        else:
            complain(message_of(error) or str(error))
        return ExitCode.USER_ERROR, None


def value_of(job: Job) -> ExitCode:
    """The exit code of a job that has ended."""
    if job.status is Status.DONE:
        return ExitCode.NO_PARITY if job.passed is False else ExitCode.DONE
    return ExitCode(job.exit_code) if job.exit_code is not None else ExitCode.BUG


def stop_file(sweep: Path, invocation: str) -> Path:
    """A file that exists once a job of this command has failed, if the command is to start no more jobs then."""
    return sweep / f".stopped-{invocation}"


def _stop_file(cfg: DictConfig) -> Path | None:
    sweep = _sweep() if cfg.fail_fast else None
    return stop_file(sweep, stamp()) if sweep is not None else None


def _sweep() -> Path | None:
    """The folder of the sweep that this job is part of."""
    hydra = HydraConfig.get()
    return Path(hydra.runtime.cwd, hydra.sweep.dir) if hydra.mode == RunMode.MULTIRUN else None


def _is_done(folder: RunFolder, cfg: DictConfig, job: Job) -> bool:
    """Whether another command has done this job of a sweep since it was handed to a launcher."""
    previous = folder.previous
    if previous is None or previous.status is not Status.DONE or _sweep() is None or damage(folder.path, previous):
        return False
    try:
        identity = identity_of(to_container(cfg))
    except OmegaConfBaseException:
        return False
    is_stale = difference(previous.code, code_of(identity.settings)) is not None
    return previous.identity == identity and not (cfg.rerun is not None and is_stale)


def _run_in(folder: RunFolder, cfg: DictConfig, job: Job, task: Task) -> ExitCode:
    """Runs the job in its folder, which this process owns, and records how it ended."""
    try:
        _run(cfg, folder, job)
    except BaseException as raised:
        error = _explained(raised, task, folder.path)
        message = message_of(error)
        _record_failure(folder, job, error, message, in_sweep=job.number is not None)
        _track(cfg, folder, job)
        if message is not None:
            complain(message)
            return ExitCode.USER_ERROR
        if isinstance(error, KeyboardInterrupt):
            if folder.is_unfinished:
                say(f"interrupted; the same command continues in hydra.run.dir={shown(folder.path)}")
            raise
        show_bug(error)
        return ExitCode.BUG
    _track(cfg, folder, job)
    return value_of(job)


def describe(cfg: DictConfig) -> Job:
    """The job before it starts. Settings with an interpolation that cannot be resolved are described unresolved."""
    hydra = HydraConfig.get()
    try:
        container = to_container(cfg)
    except OmegaConfBaseException:
        container = to_container(cfg, resolve=False)
    overrides, in_sweep = task_overrides(hydra), hydra.mode == RunMode.MULTIRUN
    if in_sweep:
        overrides = without_sweep(overrides)
    return Job(
        task=container["task"]["name"],
        overrides=overrides,
        chosen=chosen(cfg, [key_of(override) for override in overrides]),
        identity=Identity(identifying_settings(container)),
        notes=container["notes"],
        invocation=stamp(),
        number=int(hydra.job.num) if in_sweep else None,
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
    check_installed(config.tracking)
    fix_rounding()
    check_room_for("torch")
    digesting = begin_digesting(config.model, config.weights) if task.reads_weights(config.weights) else None
    task.prepare(config)
    run = task.load()
    start_threads()
    if not gc.isenabled():  # objects created during import live for the whole process: they are never scanned
        gc.freeze()
        gc.enable()
    if digesting is not None:
        digesting.join()
    job.identity = identity_of(container)
    folder.check_same_run(job.identity, config.task.neutral, lambda: default_settings(job.task))
    folder.begin(job)
    from gpt2x.reports.console import show_folder, show_log

    show_log()
    outcome = run(config, config.task, folder.path)
    if outcome.results is not None:
        job.end(Status.DONE)
        folder.forget()
        show_folder(outcome.results)
        return
    seconds = time.perf_counter() - start
    rows = [tables.TimingRow(stage, took) for stage, took in (outcome.timings | {"total": seconds}).items()]
    tables.write_rows(folder.path / "timing.csv", tables.TimingRow, rows)
    facts = {"overrides": job.overrides, "settings": job.chosen, "status": Status.DONE, "error": None}
    facts |= {"config": container} | environment() | {"seconds": seconds} | outcome.facts()
    write_text(folder.path / "manifest.json", json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    job.passed, job.numbers = outcome.passed, outcome.finite_numbers
    objective = task.objective(container["task"].get("score"))
    job.objective = job.numbers.get(objective.name) if objective else None
    job.results = results_in(folder.path, (*task.outputs, "manifest.json", "timing.csv"))
    job.code = code_of(job.identity.settings)
    job.end(Status.DONE)
    job.exit_code = value_of(job)
    job.write(folder.path)
    if job.number is None:  # a sweep ends with its own folder
        show_folder(folder.path, on_stderr=outcome.prints_text_alone)


def _track(cfg: DictConfig, folder: RunFolder, job: Job) -> None:
    """Logs a job that has ended, if the settings name a tracker, and if its folder records it.

    An error is only reported: the results of the job are in its folder.
    """
    if cfg.tracking.tracker == "none":
        return
    recorded = read_job(folder.path)
    if recorded is None or recorded.started != job.started:
        return
    try:
        tracking = TrackingConfig(**cfg.tracking)
        track(tracking, Path(HydraConfig.get().runtime.cwd), folder.path, job, TASKS[job.task].curve)
    except Exception as error:
        where = f"tracking.uri={cfg.tracking.uri}"
        say(f"warning: {where}: MLflow has not logged this job, but its folder is complete: {one_line(str(error))}")


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
    """Raises UserError if the folder holds an unfinished run of another task, which needs its job.json to go on.

    A task that reads other runs writes over none of them, whether it is done or not.
    """
    previous = folder.previous
    if previous is None or previous.task == task or previous.task not in TASKS:
        return
    if task in READERS:
        raise UserError(f"{shown(folder.path)}: holds a run of task={previous.task}; give another hydra.run.dir")
    if previous.status is Status.DONE:
        return
    state = TASKS[previous.task].state
    if state is not None and (folder.path / state).is_file():
        raise UserError(f"{shown(folder.path)}: holds an unfinished task={previous.task}; give another hydra.run.dir")


def _record_failure(folder: RunFolder, job: Job, error: BaseException, message: str | None, in_sweep: bool) -> None:
    """Records how the job ended, and removes what it wrote. After a bug the files stay, for somebody to examine."""
    kinds = {
        KeyboardInterrupt: Status.INTERRUPTED,
        DoesNotFitError: Status.SKIPPED,
        StoppedError: Status.KILLED,
    }
    reason = message or f"{type(error).__name__}: {error}".removesuffix(": ")
    job.exit_code = _exit_code(error, message)
    job.end(kinds.get(type(error), Status.FAILED), one_line(reason))
    is_bug = message is None and not isinstance(error, KeyboardInterrupt)
    if folder.begun:
        folder.record(job)
    if not is_bug:
        folder.clear(keep_job=in_sweep)


def _exit_code(error: BaseException, message: str | None) -> ExitCode:
    if isinstance(error, (KeyboardInterrupt, StoppedError)):
        return ExitCode.INTERRUPTED
    return ExitCode.USER_ERROR if message is not None else ExitCode.BUG


def _refuse_unused(job: Job, container: dict[str, Any]) -> None:
    """Raises UserError for a setting that the task does not use, whether an override or a preset has set it."""
    refuse_unused(job.task, job.chosen)
    _refuse_prompts_of_preset(job.chosen, container)
    preset = HydraConfig.get().runtime.choices.get("experiment") not in (None, "null")
    # An option of a group that the task uses in part may set the other part. The defaults cost 50 ms the first time.
    in_part = any(used.startswith(f"{key}.") for used in SCHEMAS[job.task].uses for key in job.chosen)
    if preset or job.number is not None or in_part:
        refuse_unused(job.task, non_default(flatten(container), default_settings(job.task)))


def _refuse_prompts_of_preset(chosen: dict[str, Any], container: dict[str, Any]) -> None:
    """Raises UserError if a preset's prompts_file would be read, although the command has another prompt."""
    for key in PROMPT_SOURCES - {"prompts_file"}:
        if key in chosen and container["prompts_file"] is not None and "prompts_file" not in chosen:
            raise UserError(f"{key}: the preset has a prompts_file; to replace it, add prompts_file=null")
