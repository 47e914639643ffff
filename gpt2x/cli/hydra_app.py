"""Hydra: command-line flags and launching. The only module that calls private functions of Hydra."""

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from hydra import version as hydra_version
from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.experimental.callback import Callback
from hydra.types import TaskFunction
from omegaconf import DictConfig, OmegaConf

from gpt2x.cli.composition import VERSION_BASE, stamp, to_container
from gpt2x.cli.exit_codes import ExitCode
from gpt2x.cli.help import groups_help, settings_help
from gpt2x.cli.identity import key_of_job
from gpt2x.config.schema import Config
from gpt2x.config.tasks import SCHEMAS
from gpt2x.errors import UserError
from gpt2x.paths import bundled
from gpt2x.runs.sweep import begin_sweep


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Hydra's flags and the overrides, in any order.

    Raises UserError for a flag that does not exist, and for flags that contradict each other.
    """
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    arguments = parser.parse_intermixed_args(argv)  # Hydra's own call fails on overrides before and after a flag
    if arguments.help or arguments.hydra_help:
        return arguments
    chosen = [flag for flag in ("run", "multirun", "cfg", "info", "shell_completion") if getattr(arguments, flag)]
    if len(chosen) > 1:
        _refuse(f"--{chosen[0]} and --{chosen[1]} contradict each other")
    if arguments.resolve and arguments.cfg is None:
        _refuse("--resolve is for --cfg")
    return arguments


def _refuse(message: str) -> NoReturn:
    raise UserError(f"{message}; see gpt2x --help")


def launch(arguments: argparse.Namespace, task_function: TaskFunction, started_at: str) -> None:
    """Runs one job or a sweep with the task function, or prints help or settings, as the flags say.

    `started_at` names run folders and sweeps.
    """
    hydra_version.setbase(VERSION_BASE)
    store = ConfigStore.instance()
    store.store("schema", Config)
    for name, schema in SCHEMAS.items():
        store.store(name, schema, group="schema/task")
    # Launchers pickle resolvers: they must be functions of a module.
    OmegaConf.register_new_resolver("stamp", partial(str, started_at), replace=True)
    OmegaConf.register_new_resolver("job_key", _job_key, replace=True)
    OmegaConf.register_new_resolver("settings_help", settings_help, replace=True)
    OmegaConf.register_new_resolver("groups_help", groups_help, replace=True)
    global launched
    launched = Launched()
    try:
        _run_hydra(
            args=arguments,
            args_parser=get_args_parser(),
            task_function=task_function,
            config_path=str(bundled("conf")),
            config_name="config",
        )
    except _CannotBegin as stop:
        raise stop.error from None


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


launched = Launched()


class Callbacks(Callback):
    """Hydra calls these in the process of the command: before a sweep's first job, and after a single job."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir).absolute()
        try:
            begin_sweep(folder, stamp(), list(config.hydra.overrides.task))
        except Exception as error:
            raise _CannotBegin(error) from None
        launched.sweep = folder

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        launched.exit_code = kwargs["job_return"].return_value


def _job_key(*, _root_: DictConfig) -> str:
    """For `${job_key:}` in conf/config.yaml."""
    return key_of_job(to_container(_root_))
