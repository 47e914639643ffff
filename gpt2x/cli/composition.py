"""What Hydra has composed, as plain dictionaries and as the dataclasses of gpt2x.config."""

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from typing import Any, cast

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from gpt2x.cli.copies import copied
from gpt2x.cli.overrides import key_of
from gpt2x.cli.quoting import TEXTS, as_given
from gpt2x.config.schema import Config
from gpt2x.config.settings import flatten
from gpt2x.config.sweep import OF_SWEEP, SweepConfig
from gpt2x.paths import bundled

# Hydra 1.4 has only the behaviour of 1.3, and warns of the parameter; Hydra 1.3 has an older behaviour without it.
VERSION_BASE: dict[str, Any] = {"version_base": None} if hydra.__version__.startswith("1.3.") else {}
_FOLDER_AND_MODE = ("hydra.run.dir", "hydra.sweep.dir", "hydra.mode")  # Hydra adds the last itself for -m


def to_container(cfg: DictConfig, resolve: bool = True) -> dict[str, Any]:
    """All settings as nested dictionaries, without Hydra's own part; with `resolve`, interpolations are resolved.

    Raises OmegaConfBaseException for an interpolation that cannot be resolved.
    """
    keys = [key for key in cfg if key != "hydra"]
    if not resolve:
        unresolved = cast(dict[str, Any], OmegaConf.to_container(cfg))
        return {str(key): unresolved[str(key)] for key in keys}
    values = {str(key): "???" if OmegaConf.is_missing(cfg, key) else cfg[key] for key in keys}  # a text may be `???`
    return {
        key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        for key, value in values.items()
    }


def to_config(cfg: DictConfig) -> Config:
    """All settings as dataclasses. Raises UserError or an OmegaConfBaseException for values that are not allowed.

    Texts are copied past OmegaConf, for which the text `???` marks a missing value.
    """
    container = to_container(cfg)
    rest = copied(cfg)
    rest.prompt = rest.prompt_id = rest.decode.stop = None
    texts = {key: container[key] for key in ("prompt", "prompt_id")}
    if "gen_prompt" in container["task"]:
        rest.task.gen_prompt = None
    config = cast(Config, OmegaConf.to_object(rest))
    if "gen_prompt" in container["task"]:
        config.task = replace(config.task, gen_prompt=container["task"]["gen_prompt"])
    return replace(config, decode=replace(config.decode, stop=container["decode"]["stop"]), **texts)


def task_overrides(hydra: Any) -> list[str]:
    """The overrides of settings, as they were given, from the part of a configuration that is Hydra's own."""
    return given(cast(list[str], OmegaConf.to_container(hydra.overrides.task, resolve=False)))


def hydra_overrides(hydra: Any) -> list[str]:
    """The overrides of Hydra's own settings, as they were given, without those that name the folder or the mode."""
    overrides = cast(list[str], OmegaConf.to_container(hydra.overrides.hydra, resolve=False))
    return [override for override in overrides if key_of(override) not in _FOLDER_AND_MODE]


def given(overrides: Iterable[str]) -> list[str]:
    """Overrides that Hydra has, as the user gave them."""
    return [as_given(override) if key_of(override) in TEXTS else override for override in overrides]


def without_sweep(overrides: Iterable[str]) -> list[str]:
    """The overrides of a job, without the settings of its sweep."""
    return [override for override in overrides if key_of(override) not in OF_SWEEP]


def sweep_settings(cfg: DictConfig) -> SweepConfig:
    """What a configuration says of its sweep. Raises UserError for values that are not allowed."""
    return SweepConfig(**{key: OmegaConf.select(cfg, key) for key in OF_SWEEP})


def chosen(cfg: DictConfig, keys: list[str]) -> dict[str, Any]:
    """The value of each overridden setting, None if it cannot be resolved; for a group, the name of its option."""
    choices = HydraConfig.get().runtime.choices
    values = {}
    for key in keys:
        try:
            value = choices[key] if key in choices else OmegaConf.select(cfg, key)
        except InterpolationResolutionError:
            value = None
        values[key] = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return values


@cache
def default_settings(task: str) -> dict[str, Any]:
    """A task's settings without any override, by dotted key."""
    in_worker = not GlobalHydra.instance().is_initialized()  # a process that a launcher started
    with initialize_config_dir(str(bundled("conf")), **VERSION_BASE) if in_worker else nullcontext():
        return flatten(to_container(compose("config", [f"task={task}"])))


def stamp() -> str:
    """The time at which the command of this job was started."""
    return str(OmegaConf.create({"stamp": "${stamp:}"}).stamp)
