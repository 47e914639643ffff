"""How the settings of a command are composed, and hydra.mode is learned, which a preset may set.

Hydra 1.3 composes them twice, and the first time only to learn hydra.mode: here it does once. Hydra 1.4 composes them
once, and refuses a preset that sets hydra.mode: here it composes them before to learn it.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from hydra._internal import hydra as of_command
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from gpt2x.cli.composition import VERSION_BASE

# What Hydra adds to the overrides of the command.
_MODES: tuple[list[str], ...] = ([], ["hydra.mode=RUN"], ["hydra.mode=MULTIRUN"])


@contextmanager
def own_loader() -> Iterator[None]:
    """While the context lasts, commands of Hydra use the loader for its version that is defined here."""
    vars(of_command)["ConfigLoaderImpl"] = CommandLoader if VERSION_BASE else CommandLoader14
    try:
        yield
    finally:
        vars(of_command)["ConfigLoaderImpl"] = ConfigLoaderImpl


@dataclass(frozen=True)
class _First:
    """What was composed to learn hydra.mode."""

    config_name: str | None
    overrides: list[str]
    cfg: DictConfig


class CommandLoader(ConfigLoaderImpl):
    """The loader of Hydra 1.3, which uses what it has composed to learn hydra.mode for the command itself."""

    _first: _First | None = None

    def get_group_options(
        self,
        group_name: str,
        results_filter: ObjectType | None = ObjectType.CONFIG,
        config_name: str | None = None,
        overrides: list[str] | None = None,
    ) -> list[str]:
        """Returns what the function of Hydra's loader does, which copies all schemas to answer.

        Only overrides and a configuration can add folders to look in. --help, which has neither, asks 110 times.
        """
        if config_name is None and not overrides:
            return self.repository.get_group_options(group_name, results_filter)
        return super().get_group_options(group_name, results_filter, config_name, overrides)

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Returns and raises what the function of Hydra's loader does."""
        compose = super().load_configuration
        first, self._first = self._first, None
        if not validate_sweep_overrides:  # only where Hydra asks for hydra.mode
            try:  # as for one job, for which no group may be without an option: Hydra allows it here
                cfg = compose(config_name, overrides, RunMode.RUN, from_shell, False)
            except Exception:
                return compose(config_name, overrides, run_mode, from_shell, False)
            self._first = _First(config_name, list(overrides), cfg)  # a copy, as Hydra adds to the list
            return cfg
        if first is not None:
            with suppress(HydraException):  # Hydra raises it below, or an error that comes before it
                if self._is_made_from(first, config_name, overrides, run_mode, from_shell):
                    return first.cfg
        return compose(config_name, overrides, run_mode, from_shell)

    def _is_made_from(
        self, first: _First, config_name: str | None, overrides: list[str], run_mode: RunMode, from_shell: bool
    ) -> bool:
        """Makes the settings with these overrides from those that were composed first; returns whether this can be.

        Hydra checks the overrides before it composes. It sets hydra.mode after all other settings, and computes
        nothing from it if there are no interpolations where it computes. Raises HydraException for overrides that are
        not allowed.
        """
        given, added = overrides[: len(first.overrides)], overrides[len(first.overrides) :]
        if (config_name, given) != (first.config_name, first.overrides) or added not in _MODES:
            return False
        if _has_interpolation(first.cfg.hydra.job):
            return False
        parsed = OverridesParser.create().parse_overrides(overrides)
        self.validate_sweep_overrides_legal(parsed, run_mode, from_shell)
        self._apply_overrides_to_config(parsed[len(given) :], first.cfg)
        first.cfg.hydra.overrides.hydra.extend(added)
        return True


class CommandLoader14(ConfigLoaderImpl):
    """The loader of Hydra 1.4, which also learns hydra.mode where a preset sets it."""

    def get_mode(self, config_name: str | None, overrides: list[str], *parsed: Any, **parsed_too: Any) -> Any:
        """The value of hydra.mode, None if there is none. Raises what Hydra raises."""
        mode = super().get_mode(config_name, overrides, *parsed, **parsed_too)  # type: ignore[misc]
        if mode is not None:
            return mode
        cfg = self.load_configuration(config_name, list(overrides), RunMode.MULTIRUN, validate_sweep_overrides=False)
        return cfg.hydra.mode


def _has_interpolation(job: Any) -> bool:
    """Whether the settings from which Hydra computes others, after it has set hydra.mode, may depend on it."""
    return any("${" in str(OmegaConf.to_container(node, resolve=False)) for node in (job.config, job.env_copy))
