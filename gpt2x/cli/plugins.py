"""Hydra's plugins: their settings as the base of the presets in conf/hydra, and what their workers cannot do."""

import sys
from contextlib import suppress

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import DictConfig

from gpt2x.cli.composition import task_overrides
from gpt2x.cli.overrides import key_of
from gpt2x.config.options import names
from gpt2x.errors import UserError
from gpt2x.prompts import PROMPT_FILES, STANDARD_INPUT


def prepare_plugins() -> None:
    """Moves the plugins' schemas out of the way of the presets of the same name in conf/hydra, which build on them.

    Hydra would match a schema with such a preset, and warn that it should not. hydra/launcher/X becomes
    schema/launcher/X. The schema of Optuna names options of its own group, and stays there as optuna_plugin.
    """
    Plugins.instance()  # imports the plugins, which store their schemas
    store = ConfigStore.instance()
    launchers, sweepers = store.repo["hydra"]["launcher"], store.repo["hydra"]["sweeper"]
    for name in names("hydra/launcher"):
        if f"{name}.yaml" in launchers:
            node = launchers.pop(f"{name}.yaml")
            store.store(name, node.node, group="schema/launcher", provider=node.provider)
    if "optuna.yaml" in sweepers:
        sweepers["optuna_plugin.yaml"] = sweepers.pop("optuna.yaml")
    with suppress(ModuleNotFoundError):  # the extra `slurm`
        from gpt2x.cli.submitit_launchers import register

        register()


def end_workers() -> None:
    """Ends the processes of Ray, if it was used, so that no job of an interrupted sweep still runs."""
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()


def refuse_standard_input(config: DictConfig) -> None:
    """Raises UserError if jobs of this sweep would read standard input in other processes, which do not have it."""
    launcher = config.hydra.runtime.choices["hydra/launcher"]
    if launcher == "basic":
        return
    given = {key: str(config[key]) for key in PROMPT_FILES} | dict(config.hydra.sweeper.get("params") or {})
    given |= {key_of(override): override.partition("=")[2] for override in task_overrides(config.hydra)}
    for key in PROMPT_FILES:
        if STANDARD_INPUT in (value.strip(" '\"") for value in str(given[key]).split(",")):
            raise UserError(
                f"{key}={STANDARD_INPUT}: the jobs of hydra/launcher={launcher} run in other processes, which cannot "
                f"read standard input; put it into a file"
            )
