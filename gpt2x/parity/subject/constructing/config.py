"""Makes an instance of a user's config class."""

import inspect
from collections.abc import Iterable
from typing import Any

from gpt2x.model.config import GPT2Config
from gpt2x.parity.subject.constructing.asked import given_in_code
from gpt2x.parity.subject.constructing.constants import set_attribute
from gpt2x.parity.subject.constructing.meanings import OVER_DEFAULTS, SIZES, Meaning, meaning_of, value_of


def config_of(cls: type, architecture: GPT2Config, names: Iterable[str]) -> tuple[Any, dict[str, Any]]:
    """An instance of a config class for an architecture, and what it was given.

    `names` are those that the model's code asks a config for: the instance has all of them whose meaning is known.
    Raises what the class raises.
    """
    parameters = inspect.signature(cls).parameters
    beside = {*parameters, *getattr(cls, "__annotations__", {}), *names}
    given, constants = {}, given_in_code()
    for name, parameter in parameters.items():
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            found = argument(name, parameter, architecture, beside)
            if found is parameter.empty and parameter.default is parameter.empty:
                found = constants.get(name, found)
            if found is not parameter.empty:
                given[name] = found
    made = cls(**given)
    for name in sorted({name for name in dir(made) if not name.startswith("_")} | set(names)):
        meaning = meaning_of(name, beside)
        if name not in given and meaning and (not hasattr(made, name) or _is_overruled(made, name, meaning)):
            given[name] = value_of(meaning, architecture)
            set_attribute(made, name, given[name])
    return made, given


def argument(name: str, parameter: inspect.Parameter, architecture: GPT2Config, beside: Iterable[str]) -> Any:
    """The value for a parameter, from its name; `parameter.empty` if it is unknown, or if the default is to stay."""
    meaning, default = meaning_of(name, beside), parameter.default
    if meaning is None or (default is not parameter.empty and meaning not in OVER_DEFAULTS):
        return parameter.empty
    value = value_of(meaning, architecture)
    if meaning is Meaning.KIND and default is parameter.empty and parameter.annotation in (str, "str"):
        return "gpt2"  # it must be one of some names, which then has sizes of its own
    if isinstance(default, bool | str) and type(default) is not type(value):
        return parameter.empty
    return str(value) if parameter.annotation in (str, "str") else value


def _is_overruled(owner: Any, name: str, meaning: Any) -> bool:
    """Whether a plain attribute that was not given, or a size that is None, is to have the value of GPT-2."""
    static, value = inspect.getattr_static(owner, name, None), getattr(owner, name)
    if value is None:
        return meaning in SIZES
    return meaning in OVER_DEFAULTS and isinstance(static, int | float) and isinstance(value, int | float)
