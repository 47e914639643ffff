"""Composes the jobs of a sweep in the process of the command, faster than Hydra does it job by job."""

import copy
from collections.abc import Sequence
from functools import cache
from typing import Any, cast

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from gpt2x.cli.composition import to_container
from gpt2x.cli.help import setting_types
from gpt2x.cli.overrides import key_of
from gpt2x.errors import UserError

_JOB_KEY, _SWEEP_NAME = "${job_key:}", "${sweep_name:}"


class Composer:
    """Composes jobs of one sweep. Most of them differ in plain values alone: those are set in a copy."""

    def __init__(self, loader: ConfigLoader, sweep: DictConfig) -> None:
        """`sweep` is the configuration of the whole sweep."""
        self.loader, self.sweep = loader, sweep
        self._bases: dict[tuple[str, ...], DictConfig | None] = {}

    def compose(self, overrides: Sequence[str], number: int) -> tuple[dict[str, Any] | None, str | None]:
        """The settings of a job as nested dictionaries, and the name of its folder if it is not the job's key.

        The settings are None if they have an interpolation that cannot be resolved. Raises what Hydra raises for
        overrides that cannot be composed, and UserError for a job that would lie in another folder than the sweep.
        """
        plain = [text for text in overrides if _is_plain(text)]
        base = self._base(tuple(text for text in overrides if text not in plain))
        if base is not None:
            settings = copy.deepcopy(base)
            try:
                for each in map(_parsed, plain):
                    OmegaConf.update(settings, each.key_or_group, each.value(), merge=True)
                return to_container(settings), None
            except OmegaConfBaseException:
                pass  # Hydra's own way gives the right message
        return self._by_hydra(overrides, number)

    def _base(self, groups: tuple[str, ...]) -> DictConfig | None:
        """The settings with these options of groups alone; None if a job's number or folder may matter to them."""
        if groups not in self._bases:
            cfg = self.loader.load_sweep_config(self.sweep, list(groups))
            folder = cast(dict[str, str], OmegaConf.to_container(cfg.hydra.sweep, resolve=False))
            settings = copy.deepcopy(cfg)
            with open_dict(settings):
                del settings["hydra"]
            is_own = folder["subdir"] == _JOB_KEY and "${" not in folder["dir"].replace(_SWEEP_NAME, "")
            is_own = is_own and "${hydra:" not in OmegaConf.to_yaml(settings)
            self._bases[groups] = settings if is_own else None
        return self._bases[groups]

    def _by_hydra(self, overrides: Sequence[str], number: int) -> tuple[dict[str, Any] | None, str]:
        """The same as `compose`, in the way of the launchers."""
        cfg = self.loader.load_sweep_config(self.sweep, list(overrides))
        with open_dict(cfg):
            cfg.hydra.job.id = cfg.hydra.job.num = number
        hydra = HydraConfig.instance()
        before, hydra.cfg = hydra.cfg, None
        try:
            hydra.set_config(cfg)
            folder = str(cfg.hydra.sweep.subdir)
            if cfg.hydra.sweep.dir != self.sweep.hydra.sweep.dir:
                raise UserError("hydra.sweep.dir: all jobs of a sweep have one folder, which may not depend on the job")
            try:
                return to_container(cfg), folder
            except OmegaConfBaseException:
                return None, folder
        finally:
            hydra.cfg = before


def _is_plain(override: str) -> bool:
    """Whether an override only gives a setting a value that means the same in every job."""
    key = override.partition("=")[0]
    return key == key_of(override) and key in setting_types() and "${" not in override


@cache
def _parsed(override: str) -> Override:
    return OverridesParser.create().parse_override(override)
