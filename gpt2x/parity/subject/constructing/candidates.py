"""The configs that may be passed to a parameter, the most likely one first."""

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

from torch import nn

from gpt2x.model.config import GPT2Config
from gpt2x.parity.subject.constructing.architecture import Architecture
from gpt2x.parity.subject.constructing.asked import CONFIG, asked_of_configs, given_in_code, is_own
from gpt2x.parity.subject.constructing.config import argument, config_of
from gpt2x.parity.subject.constructing.meanings import meaning_of
from gpt2x.parity.subject.importing.placeholder import Placeholder

_PLAIN = (int, float, bool, str, bytes, list, tuple, dict, set, object, type(None))
Given = Callable[[], dict[str, Any]]
"""What a config was made with, or what was asked of it: complete after the call."""


def configs(
    make: Callable[..., Any], parameter: inspect.Parameter, architecture: GPT2Config
) -> Iterator[tuple[Any, Given]]:
    """Configs for a parameter: of the class that it is annotated with, any names, and of other classes in the file."""
    module = sys.modules.get(getattr(make, "__module__", ""))
    names, sections = asked_of_configs(make)
    classes = _annotated(parameter, module)
    if parameter.default is parameter.empty:
        pass
    elif isinstance(parameter.default, type):
        classes.append(parameter.default)
    elif not isinstance(parameter.default, _PLAIN):
        classes.append(type(parameter.default))
    if inspect.isclass(make) and isinstance(getattr(make, "config_class", None), type):
        classes.append(make.config_class)  # type: ignore[attr-defined]
    beside = [value for name, value in _configs_in(module) if value not in classes] if module else []
    first: list[tuple[Any, dict[str, Any]]] = []
    for cls in classes:
        found = _instance(cls, architecture, names)
        if found:
            first.append(found)
            yield found[0], lambda found=found: found[1]  # type: ignore[misc]
    others = [found for cls in beside if isinstance(cls, type) and (found := _instance(cls, architecture, names))]
    dictionaries = [value for value in beside if isinstance(value, dict)]
    defaults = {name: value for name, value in given_in_code().items() if meaning_of(name) is None}
    for values in (*dictionaries, *(_attributes(made) for made, _ in (*others, *first))):
        defaults |= values
    answering = Architecture(architecture, defaults, names, sections)
    yield answering, lambda: answering.asked
    for made, given in others:
        yield made, lambda given=given: given  # type: ignore[misc]
    for values in dictionaries:
        sized = {name: argument(name, _with_default(name, old), architecture, values) for name, old in values.items()}
        known = {name: value for name, value in sized.items() if value is not inspect.Parameter.empty}
        yield values | known, lambda known=known: known  # type: ignore[misc]


def _with_default(name: str, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)


def _instance(cls: type, architecture: GPT2Config, names: Iterable[str]) -> tuple[Any, dict[str, Any]] | None:
    try:
        return config_of(cls, architecture, names)
    except Exception:  # it needs what cannot be inferred; another config may do
        return None


def _attributes(config: Any) -> dict[str, Any]:
    names = [name for name in dir(config) if not name.startswith("_")]
    values = {name: getattr(config, name, None) for name in names}
    return {name: value for name, value in values.items() if not inspect.isroutine(value)}


def _annotated(parameter: inspect.Parameter, module: ModuleType | None) -> list[type]:
    """The classes that an annotation names, without those of Python: `GPTConfig | None`, `"GPTConfig"`."""
    annotation = parameter.annotation
    if annotation is parameter.empty or isinstance(annotation, Placeholder):
        return []
    if isinstance(annotation, type):
        found = [annotation]
    else:
        words = re.findall(r"[A-Za-z_]\w*", annotation if isinstance(annotation, str) else str(annotation))
        found = [getattr(module, word, None) for word in words] if module else []  # type: ignore[misc]
    return [
        cls for cls in found if isinstance(cls, type) and cls not in _PLAIN and not issubclass(cls, nn.Module | dict)
    ]


def _configs_in(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Classes and dictionaries of a module whose names or keys are those of a config."""
    for name in dir(module):
        if not name.startswith("__") and CONFIG.fullmatch(name):
            value = getattr(module, name, None)
            is_config = isinstance(value, dict) and sum(meaning_of(str(key)) is not None for key in value) >= 2
            if is_config or (isinstance(value, type) and is_own(value) and not issubclass(value, nn.Module)):
                yield name, value
