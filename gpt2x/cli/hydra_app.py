"""Hydra: command-line flags and launching. Besides loader.py, the only module that calls private functions of Hydra."""

import argparse
import io
import os
import re
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, suppress
from dataclasses import dataclass, field, replace
from functools import cache, partial
from inspect import signature
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn

from hydra import version as hydra_version
from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from gpt2x.cli.completion import prepare_completion
from gpt2x.cli.composer import Composer
from gpt2x.cli.composition import VERSION_BASE, hydra_overrides, stamp, sweep_settings, task_overrides, to_container
from gpt2x.cli.exit_codes import ExitCode
from gpt2x.cli.help import groups_help, settings_help
from gpt2x.cli.identity import hash_of, key_of_job
from gpt2x.cli.loader import CommandLoader, own_loader
from gpt2x.cli.old_flags import new_form
from gpt2x.cli.overrides import PROMPT_SOURCES, key_of
from gpt2x.cli.plugins import prepare_plugins, refuse_standard_input
from gpt2x.cli.presets import own_folder
from gpt2x.cli.prompt_axis import SWEEP_PROMPTS, axis_of
from gpt2x.cli.resume import Resuming
from gpt2x.cli.search import has_no_trial, prepare_search
from gpt2x.cli.sweep_job import SweepJob
from gpt2x.config.objective import Objective
from gpt2x.config.schema import Config
from gpt2x.config.tasks import READERS, SCHEMAS
from gpt2x.errors import UserError
from gpt2x.paths import bundled, bundled_file
from gpt2x.runs.sweep import begin_sweep


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Hydra's flags and the overrides, in any order.

    Raises UserError for a flag that does not exist, and for flags that contradict each other.
    """
    parser = get_args_parser()
    parser.allow_abbrev = False  # so that `--p` of another script is not `--package`
    parser.error = _refuse  # type: ignore[method-assign]
    options = {option: action for action in parser._actions for option in action.option_strings}
    new = new_form(argv, options.keys(), [option for option, action in options.items() if action.nargs is None])
    if new is not None:
        raise UserError(new)
    arguments = parser.parse_intermixed_args(argv)  # Hydra's own call fails on overrides before and after a flag
    if arguments.config_dir is None:
        arguments.config_dir = own_folder()
    if arguments.shell_completion:
        _check_completion(arguments.overrides)
    elif not (arguments.help or arguments.hydra_help):
        _check_flags(arguments)
    for flag in ("config_path", "config_name", "experimental_rerun"):
        if getattr(arguments, flag) is not None:
            _refuse(f"--{flag.replace('_', '-')}: not supported; --config-dir DIR adds options and presets of yours")
    return arguments


def _check_flags(arguments: argparse.Namespace) -> None:
    """Raises UserError for flags that contradict each other or need another flag."""
    chosen = [flag for flag in ("run", "multirun", "cfg", "info") if getattr(arguments, flag)]
    if len(chosen) > 1:
        _refuse(f"--{chosen[0]} and --{chosen[1]} contradict each other")
    if arguments.resolve and arguments.cfg not in ("job", "all"):
        _refuse("--resolve is for --cfg job and --cfg all")
    if arguments.package is not None and arguments.cfg is None:
        _refuse("--package is for --cfg")


def make_multirun(arguments: argparse.Namespace) -> None:
    """Has the command run a sweep, unless it only prints the settings of its jobs. Raises UserError for --run."""
    if arguments.run:
        _refuse("--run is for one job, and sweep=NAME and sweep_prompts=FILE are for several: leave one of them out")
    arguments.multirun = not (arguments.help or arguments.hydra_help or arguments.cfg or arguments.info)


def _check_completion(words: list[str]) -> None:
    """Raises UserError unless the words ask for one thing that Hydra's shell completion can do."""
    if len(words) != 1 or re.fullmatch(r"(install|uninstall|query)=(bash|fish|zsh)", words[0]) is None:
        _refuse("-sc takes install=SHELL or uninstall=SHELL, where SHELL is bash, fish or zsh")
    if words[0].startswith("query=") and "COMP_LINE" not in os.environ:
        _refuse(f"-sc {words[0]} is for the shell, which sets COMP_LINE")


def _refuse(message: str) -> NoReturn:
    raise UserError(f"{message}; see gpt2x --help")


def launch(arguments: argparse.Namespace, task_function: TaskFunction, started_at: str) -> None:
    """Runs one job or a sweep with the task function, or prints help or settings, as the flags say.

    `started_at` names run folders and sweeps.
    """
    # Hydra's advice would be lines beside the one line of an error.
    warnings.filterwarnings("ignore", module=r"hydra\.(?!_internal\.callbacks)")
    warnings.filterwarnings("ignore", r"hydra\.utils\.instantiate\(\) resolved")  # 1.4: the target of our callbacks
    if VERSION_BASE:
        hydra_version.setbase(VERSION_BASE["version_base"])
    _store_schemas()
    # Launchers pickle resolvers: they must be functions of a module.
    _register("stamp", partial(_unchanged, started_at))
    _register("sweep_name", _sweep_name)
    _register("job_key", _job_key)
    _register("bundled", bundled_file)
    _register("settings_help", settings_help)
    _register("groups_help", groups_help)
    if not arguments.shell_completion:
        _call_hydra(arguments, task_function)
        return
    prepare_completion(arguments.overrides[0])
    with suppress(UserError, HydraException, OmegaConfBaseException):  # a line that is being typed may be wrong
        _call_hydra(arguments, task_function)


@cache
def _store_schemas() -> None:
    """Once per process: Hydra 1.4 warns of a schema that replaces another."""
    store = ConfigStore.instance()
    store.store("schema", Config)
    for name, schema in SCHEMAS.items():
        store.store(name, schema, group="schema/task")
    prepare_plugins()


def _call_hydra(arguments: argparse.Namespace, task_function: TaskFunction) -> None:
    """Raises UserError for what Hydra itself would report by a traceback, or by a line of its own and an exit."""
    printed = io.StringIO()
    try:
        quietly = redirect_stderr(printed) if arguments.cfg or arguments.shell_completion else nullcontext()
        with quietly, own_loader(), _resuming(launched.launchers):
            _run_hydra(
                args=arguments,
                args_parser=get_args_parser(),
                task_function=task_function,
                config_path=str(bundled("conf")),
                config_name="config",
            )
    except _CannotBegin as stop:
        raise stop.error from None
    except SystemExit as stop:
        if stop.code:
            raise UserError(printed.getvalue()) from None
    except (HydraException, OmegaConfBaseException, OSError, UserError):
        raise  # gpt2x.cli.messages explains them
    except Exception as error:
        if launched.objective is not None and has_no_trial(error):
            return  # the jobs have said why, and what the sweep ends with says that there is no result
        if _is_from_gpt2x(error):
            raise
        text = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise UserError(f"Hydra cannot use these settings: {text}") from error


def _is_from_gpt2x(error: Exception) -> bool:
    """Whether code of gpt2x that Hydra called raised the error; if not, Hydra did, because of the settings."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    modules = [frame.f_globals.get("__name__", "") for frame in frames]
    # They call Hydra, its plugins and their launchers.
    calling = (__name__, CommandLoader.__module__, Resuming.__module__)
    ours = [module for module in modules if module.startswith("gpt2x.") and module not in calling]
    return bool(ours) or modules[-1] in calling


@contextmanager
def _resuming(use: list[Resuming]) -> Iterator[None]:
    """While the context lasts, every launcher that Hydra makes is one that resumes; `use` receives it.

    It composes all jobs of a sweep itself, so sweepers need not try before whether they can be composed.
    """

    def instantiate(self: Plugins, *, hydra_context: Any, task_function: Any, config: Any) -> Launcher:
        composer = Composer(hydra_context.config_loader, config)
        real = make(self, hydra_context=hydra_context, task_function=task_function, config=config)
        from hydra._internal.core_plugins.basic_launcher import BasicLauncher  # Hydra imports its plugins anew

        if isinstance(real, BasicLauncher):  # it runs jobs in this process: others compose them where they run
            real.hydra_context = replace(hydra_context, config_loader=composer)
        use.append(Resuming(real, composer))
        return use[-1]

    make, check = Plugins.instantiate_launcher, Sweeper.validate_batch_is_legal
    Plugins.instantiate_launcher, Sweeper.validate_batch_is_legal = instantiate, lambda self, batch: None  # type: ignore
    try:
        yield
    finally:
        Plugins.instantiate_launcher, Sweeper.validate_batch_is_legal = make, check  # type: ignore


class _CannotBegin(BaseException):
    """Leaves Hydra before a sweep's first job. Hydra only warns of an Exception that a callback raises."""

    def __init__(self, error: Exception) -> None:
        self.error = error


@dataclass
class Launched:
    """What the command learns from Hydra's callbacks; everything else about the jobs is in their run folders."""

    sweep: Path | None = None
    """The folder of the sweep, once it has begun."""
    exit_code: ExitCode = ExitCode.DONE
    """The exit code of a single job."""
    launchers: list[Resuming] = field(default_factory=list)
    """The launcher of the sweep, once Hydra has made it."""
    objective: Objective | None = None
    """What the sweep optimizes, if it is a search."""
    prompts: str | None = None
    """The override `sweep_prompts=FILE`, whose prompts are an axis of the sweep."""
    made: list[Path] = field(default_factory=list)
    """The run folder or the sweep's, and those above it, where they did not exist before; the innermost first."""

    @property
    def jobs(self) -> list[SweepJob]:
        """The jobs of the sweep, as far as they were composed."""
        return [job for launcher in self.launchers for job in launcher.jobs]

    def will_make(self, folder: Path) -> None:
        self.made = list(takewhile(lambda each: not each.exists(), (folder, *folder.parents)))

    def remove_empty(self) -> None:
        """Removes the folders that were made for this command, as long as they are empty."""
        with suppress(OSError):  # the first that is not empty
            for folder in self.made:
                folder.rmdir()


launched = Launched()


class Callbacks(Callback):
    """Hydra calls these before a sweep's first job, and after a single job, in the process of the command.

    It calls `on_job_end` in the process of each job.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        with suppress(OmegaConfBaseException, OSError):  # Hydra raises it again when it makes the folder
            launched.will_make(Path(str(config.hydra.run.dir)).absolute())

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            refuse_standard_input(config)
            if config.task.name in READERS:
                raise UserError(f"task={config.task.name} reads other runs, and is no job of a sweep")
            if "${" in str(to_container(config, resolve=False)["sweep"]):
                raise UserError("sweep: all jobs of a sweep have one name, which may not depend on other settings")
            folder = Path(str(config.hydra.sweep.dir)).absolute()
            given = task_overrides(config.hydra)
            launched.objective = prepare_search(config)
            launched.will_make(folder)
            sweep_settings(config)  # raises UserError
            axis = _prompt_axis(config.hydra)
            swept = [each for override in axis for each in axis_of(override)]
            begin_sweep(folder, stamp(), [*given, *axis, *hydra_overrides(config.hydra)])
            with read_write(config.hydra):
                config.hydra.overrides.task.extend(swept)  # += would resolve the interpolations in it
        except Exception as error:
            raise _CannotBegin(error) from None
        launched.sweep = folder

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        # Nobody reads the configurations, and launchers keep what they return of every job of a sweep.
        job_return.cfg = job_return.hydra_cfg = None

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        if kwargs["job_return"].status is JobStatus.COMPLETED:  # if not, Hydra raises why it could not start the job
            launched.exit_code = kwargs["job_return"].return_value


def _register(name: str, resolver: Callable[..., str]) -> None:
    """Registers a resolver by OmegaConf 2.4's name of the function, which had another meaning before, or by 2.3's."""
    is_new = "replace" in signature(OmegaConf.register_resolver).parameters
    register = OmegaConf.register_resolver if is_new else OmegaConf.register_new_resolver
    register(name, resolver, replace=True)  # type: ignore[call-arg]


def _unchanged(text: str) -> str:
    return text


def _sweep_name(*, _root_: DictConfig) -> str:
    """For `${sweep_name:}` in conf/config.yaml: the name of the sweep, or else the time at which it was started."""
    return str(_root_.sweep) if _root_.sweep is not None else stamp()


def _prompt_axis(hydra: DictConfig) -> list[str]:
    """`sweep_prompts=FILE`, if the command has it, or else from the parameters of a preset, from which it is removed.

    Prompts on the command line replace those of the preset.
    """
    of_preset = None
    params = OmegaConf.select(hydra, "sweeper.params")
    if isinstance(params, DictConfig):  # which it is not where the command has replaced it
        with read_write(params), open_dict(params):
            of_preset = params.pop(SWEEP_PROMPTS, None)
    if launched.prompts is not None:
        return [] if launched.prompts.endswith("=null") else [launched.prompts]
    given = {key_of(override) for override in task_overrides(hydra)}
    if of_preset is None or not PROMPT_SOURCES.isdisjoint(given):
        return []
    if "prompt_id" in given:
        raise UserError(
            f"prompt_id: the preset has {SWEEP_PROMPTS}={of_preset}, all of its prompts; give a prompts_file too"
        )
    return [f"{SWEEP_PROMPTS}={of_preset}"]


def _job_key(*, _root_: DictConfig) -> str:
    """For `${job_key:}` in conf/config.yaml. A job whose settings cannot be resolved has a key, too: it fails alone."""
    try:
        container = to_container(_root_)
    except OmegaConfBaseException:
        return hash_of(to_container(_root_, resolve=False))
    return key_of_job(container)
