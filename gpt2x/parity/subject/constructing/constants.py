"""Gives the constants of a user's modules the sizes of the architecture."""

import inspect
from collections.abc import Iterable
from typing import Any

from torch import nn

from gpt2x.model.config import GPT2Config
from gpt2x.parity.subject.constructing.asked import CONFIG, asked_of_configs, is_own
from gpt2x.parity.subject.constructing.meanings import DERIVED, SIZES, Meaning, meaning_of, value_of
from gpt2x.parity.subject.importing.placeholder import Placeholder


class Constants:
    """Sets what a module-level statement has just made, and remembers what it set."""

    def __init__(self, config: GPT2Config) -> None:
        self._config = config
        self.set: dict[str, Any] = {}
        """Name -> the value that it was given."""

    def __call__(self, namespace: dict[str, Any], name: str, beside: Iterable[str]) -> None:
        """Replaces a number by the architecture's size of the same meaning, in the namespace and in its configs.

        Objects are changed if at least two of their names are sizes: dictionaries, instances, and the defaults of
        classes that are not modules. A name that could not be made, such as the number of characters in a file that
        is not there, is replaced as well. `beside` are the names of the module.
        """
        value = namespace[name]
        if _is_number(value) or isinstance(value, Placeholder):
            meaning = meaning_of(name, beside)
            if meaning in SIZES or (meaning in DERIVED and _is_number(value)):
                namespace[name] = self._sized(name, meaning)
        elif isinstance(value, dict):
            for key, meaning in _sizes(value).items():
                value[key] = self._sized(f"{name}[{key!r}]", meaning)
        elif isinstance(value, type):
            if not issubclass(value, nn.Module):
                self._set_class(name, value)
        elif hasattr(value, "__dict__") and not callable(value):
            for key, meaning in _sizes(vars(value)).items():
                set_attribute(value, key, self._sized(f"{name}.{key}", meaning))
            if CONFIG.fullmatch(name) and is_own(type(value)):
                self._complete(name, value)

    def _complete(self, name: str, config: Any) -> None:
        """Gives a config what the code asks it for and the program would have read from a file or a command line."""
        asked = asked_of_configs()[0]
        for key in sorted(key for key in asked if not hasattr(config, key)):
            meaning = meaning_of(key, asked)
            if meaning is not None:
                set_attribute(config, key, self._sized(f"{name}.{key}", meaning))

    def _set_class(self, name: str, cls: type) -> None:
        for key, meaning in _sizes(vars(cls)).items():
            set_attribute(cls, key, self._sized(f"{name}.{key}", meaning))
        init = vars(cls).get("__init__")
        if inspect.isfunction(init):
            defaults = {key: each.default for key, each in inspect.signature(init).parameters.items()}
            sizes = _sizes(defaults)
            new = {key: value_of(sizes[key], self._config) if key in sizes else old for key, old in defaults.items()}
            init.__defaults__ = tuple(new[key] for key in _with_default(init)) or None
            init.__kwdefaults__ = {key: new[key] for key in init.__kwdefaults__ or {}} or None

    def _sized(self, name: str, meaning: Meaning) -> Any:
        self.set[name] = value_of(meaning, self._config)
        return self.set[name]


def set_attribute(owner: Any, key: str, value: Any) -> None:
    """Sets an attribute, also of a frozen dataclass."""
    try:
        setattr(owner, key, value)
    except (AttributeError, TypeError):
        object.__setattr__(owner, key, value)


def _with_default(function: Any) -> list[str]:
    positional = function.__code__.co_varnames[: function.__code__.co_argcount]
    return list(positional[len(positional) - len(function.__defaults__ or ()) :])


def _sizes(values: Any) -> dict[str, Meaning]:
    """The names of numbers that are sizes; none if there are fewer than two of them."""
    names = [key for key, value in values.items() if isinstance(key, str) and _is_number(value)]
    found = {name: meaning_of(name, names) for name in names}
    sizes = {name: meaning for name, meaning in found.items() if meaning in SIZES}
    derived = {name: meaning for name, meaning in found.items() if meaning in DERIVED}
    return sizes | derived if len(sizes) >= 2 else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
