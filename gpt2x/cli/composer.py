"""Composes the jobs of a sweep in the process of the command, faster than Hydra does it job by job."""

import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, cast

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from gpt2x.cli.composition import to_container
from gpt2x.cli.help import setting_types
from gpt2x.cli.overrides import key_of
from gpt2x.errors import UserError

_JOB_KEY, _SWEEP_NAME = "${job_key:}", "${sweep_name:}"


@dataclass(frozen=True)
class _Base:
    """What jobs with the same options of groups have in common, pickled: so it is copied faster than by deepcopy."""

    whole: bytes
    settings: bytes | None
    """Without Hydra's own part; None if a job's number or folder may matter to the settings."""


class Composer:
    """Composes jobs of one sweep. Most of them differ in plain values alone: those are set in a copy.

    The options of the groups are composed by Hydra, once per combination. Hydra sets values after it has composed the
    groups, too, so the result is the same.
    """

    def __init__(self, loader: ConfigLoader, sweep: DictConfig) -> None:
        """`sweep` is the configuration of the whole sweep."""
        self.loader, self.sweep = loader, sweep
        self._bases: dict[tuple[str, ...], _Base] = {}

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """The configuration of a job: what the function of this name of Hydra's loader returns, or raises.

        `master_config` is the configuration of the whole sweep.
        """
        try:
            differs_in_values = self._differs_in_values(sweep_overrides)
        except HydraException:  # the loader raises it with the place among all overrides
            differs_in_values = False
        if not differs_in_values:
            return self.loader.load_sweep_config(master_config, sweep_overrides)
        plain = self._plain(sweep_overrides)
        cfg: DictConfig = pickle.loads(self._base(sweep_overrides).whole)
        try:
            _set(cfg, plain)
        except OmegaConfBaseException:
            return self.loader.load_sweep_config(master_config, sweep_overrides)  # raises the right message
        cfg.hydra.overrides.task = sweep_overrides
        _name_folder(cfg.hydra.job, sweep_overrides)
        OmegaConf.copy_cache(from_config=master_config, to_config=cfg)
        return cfg

    def compose(self, overrides: Sequence[str], number: int) -> tuple[dict[str, Any] | None, str | None]:
        """The settings of a job as nested dictionaries, and the name of its folder if it is not the job's key.

        The settings are None if they have an interpolation that cannot be resolved. Raises what Hydra raises for
        overrides that cannot be composed, and UserError for a job that would lie in another folder than the sweep.
        """
        if self._differs_in_values(overrides) and not any("${" in text for text in overrides):
            base = self._base(overrides).settings
            if base is not None:
                settings: DictConfig = pickle.loads(base)
                try:
                    _set(settings, self._plain(overrides))
                    return to_container(settings), None
                except OmegaConfBaseException:
                    pass  # Hydra's own way gives the right message
        return self._as_launched(overrides, number)

    @cached_property
    def _groups(self) -> frozenset[str]:
        """The groups of settings, those in folders of the user's included."""
        config_name, hydra = self.sweep.hydra.job.config_name, self.sweep.hydra.overrides.hydra
        overrides = cast(list[str], OmegaConf.to_container(hydra, resolve=False))
        return frozenset(self.loader.get_group_options("", ObjectType.GROUP, config_name, overrides))

    def _differs_in_values(self, overrides: Sequence[str]) -> bool:
        """Whether each of the overrides chooses an option of a group or gives a setting a value."""
        return all(self._is_plain(text) or self._is_choice(text) for text in overrides)

    def _plain(self, overrides: Sequence[str]) -> list[str]:
        return [text for text in overrides if self._is_plain(text)]

    def _is_plain(self, text: str) -> bool:
        """Whether an override only gives a setting a value."""
        key = text.partition("=")[0]
        return key in setting_types() and key not in self._groups and not _parsed(text).is_sweep_override()

    def _is_choice(self, text: str) -> bool:
        """Whether an override only chooses an option of a group."""
        return text.partition("=")[0] in self._groups and isinstance(_parsed(text).value(), str)

    def _base(self, overrides: Sequence[str]) -> _Base:
        """The configuration with these overrides, apart from those that give a setting a value."""
        groups = tuple(text for text in overrides if not self._is_plain(text))
        if groups not in self._bases:
            self._bases[groups] = _base_of(self.loader.load_sweep_config(self.sweep, list(groups)))
        return self._bases[groups]

    def _as_launched(self, overrides: Sequence[str], number: int) -> tuple[dict[str, Any] | None, str]:
        """The same as `compose`, in the way of the launchers."""
        cfg = self.load_sweep_config(self.sweep, list(overrides))
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


def _base_of(cfg: DictConfig) -> _Base:
    whole = pickle.dumps(cfg)
    folder = cast(dict[str, str], OmegaConf.to_container(cfg.hydra.sweep, resolve=False))
    with open_dict(cfg):
        del cfg["hydra"]
    is_own = folder["subdir"] == _JOB_KEY and "${" not in folder["dir"].replace(_SWEEP_NAME, "")
    is_own = is_own and "${hydra:" not in OmegaConf.to_yaml(cfg)
    return _Base(whole, pickle.dumps(cfg) if is_own else None)


def _set(cfg: DictConfig, plain: Sequence[str]) -> None:
    """Gives settings their values, as Hydra does. Raises OmegaConfBaseException for a value that is not allowed."""
    for each in map(_parsed, plain):
        OmegaConf.update(cfg, each.key_or_group, each.value(), merge=True)


def _name_folder(job: DictConfig, overrides: Sequence[str]) -> None:
    """Sets hydra.job.override_dirname, which Hydra 1.3 computes when it composes; in Hydra 1.4 it is a resolver."""
    if OmegaConf.is_interpolation(job, "override_dirname"):
        return
    form = job.config.override_dirname
    named = sorted(text for text in overrides if key_of(text) not in form.exclude_keys)
    job.override_dirname = re.sub("[=]", form.kv_sep, form.item_sep.join(named))


@cache
def _parsed(override: str) -> Override:
    """Raises what Hydra raises where it composes an override that cannot be read."""
    (parsed,) = OverridesParser.create().parse_overrides([override])
    return parsed
