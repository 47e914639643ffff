"""The settings of conf/*.yaml as dataclasses, without Hydra: for the Python API, where keywords replace overrides."""

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gpt2x.errors import UserError, nearest
from gpt2x.paths import bundled

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")


def names(group: str) -> tuple[str, ...]:
    """The options of a group: the names of the files in conf/<group>/."""
    return tuple(sorted(file.stem for file in bundled("conf").glob(f"{group}/*.yaml")))


def shared() -> dict[str, Any]:
    """The settings that belong to no group, with the values of conf/config.yaml."""
    return {key: value for key, value in _read("config").items() if key not in ("defaults", "hydra")}


def option(group: str, name: str) -> dict[str, Any]:
    """The settings of an option with the values of conf/<group>/<name>.yaml, and of the option that it builds on."""
    content = dict(_read(f"{group}/{name}"))
    below = [each for each in content.pop("defaults", []) if each != "_self_" and not each.startswith("/")]
    settings: dict[str, Any] = {}
    for each in below:
        settings |= option(group, each)
    return settings | content


@cache
def _read(name: str) -> dict[str, Any]:
    import yaml

    content: dict[str, Any] = yaml.safe_load((bundled("conf") / f"{name}.yaml").read_text(encoding="utf-8"))
    return content


def build(schema: type[Settings], prefix: str, settings: Mapping[str, Any]) -> Settings:
    """The dataclass with these settings, checked and converted as those of the command line are.

    Raises UserError for a setting that does not exist, has the wrong type or is not allowed; the message calls it
    `prefix` and its name.
    """
    known = {each.name: each.type for each in fields(schema)}
    for key in settings:
        if key not in known:
            raise UserError(f"{prefix}{key}: no such setting{nearest(key, known) or f'; there are {list(known)}'}")
    # Settings of any type go past OmegaConf, which would take text such as `???` or `${x}` for its own.
    untyped = {key: value for key, value in settings.items() if Any in (known[key], *get_args(known[key]))}
    typed = {key: _plain(value) for key, value in settings.items() if key not in untyped}
    try:
        made: Settings = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), typed))  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        cause = error.__cause__ or error
        key = getattr(cause, "full_key", None) or ""
        raise UserError(f"{prefix}{key}: {str(cause).partition(chr(10))[0]}") from None
    return replace(made, **untyped)


def _plain(value: Any) -> Any:
    """A number of numpy or torch as one of Python; any other value unchanged."""
    return value.item() if hasattr(value, "item") else value
