"""Infers the arguments with which a class or function of a user's makes a model of a given architecture."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from gpt2x.model.config import GPT2Config
from gpt2x.parity.subject.code import SubjectError
from gpt2x.parity.subject.constructing.asked import CONFIG, asked_of_configs, given_in_code, items_of
from gpt2x.parity.subject.constructing.candidates import Given, configs
from gpt2x.parity.subject.constructing.config import argument
from gpt2x.parity.subject.constructing.meanings import SIZES, meaning_of, meaning_of_letter, value_of


@dataclass
class Call:
    """Arguments for one call, and a description of them that is complete after the call."""

    positional: list[Any]
    named: dict[str, Any]
    texts: Given

    def __str__(self) -> str:
        return ", ".join(f"{name}={_shown(value)}" for name, value in self.texts().items())


def calls(make: Callable[..., Any], architecture: GPT2Config) -> Iterator[Call]:
    """The calls to try, the most likely one first.

    Raises SubjectError if a parameter has no default and a name whose meaning is not known.
    """
    parameters = _parameters(make)
    names = [parameter.name for parameter in parameters]
    given: dict[str, Any] = {}
    config: inspect.Parameter | None = None
    unknown: list[str] = []
    constants = given_in_code()
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            items = items_of(make, parameter.name)
            asked = (items | asked_of_configs(make)[0] if items else items) - set(names)  # it may pass them on
            given |= {name: value_of(m, architecture) for name in asked if (m := meaning_of(name, asked))}
            continue
        value = argument(parameter.name, parameter, architecture, names)
        letter = meaning_of_letter(parameter.name) if len(parameters) > 2 else None
        if value is parameter.empty and letter and parameter.default is parameter.empty:
            value = value_of(letter, architecture)
        if value is not parameter.empty:
            given[parameter.name] = value
        elif parameter.default is parameter.empty and parameter.name in constants:
            given[parameter.name] = constants[parameter.name]
        elif config is None and _may_be_config(parameter):
            config = parameter
        elif parameter.default is parameter.empty:
            unknown.append(parameter.name)
    if unknown:
        raise SubjectError(
            f"needs {', '.join(unknown)}, and gpt2x does not know what that means: "
            "let subject.target name a function that makes the model"
        )
    if config is None:
        yield _call(parameters, given, lambda: given)
        return
    missing = set(SIZES) - {meaning_of(name, names) or meaning_of_letter(name) for name in given}
    if len(missing) == 1 and not CONFIG.fullmatch(config.name):  # all sizes have parameters of their own
        sized = given | {config.name: value_of(missing.pop(), architecture)}
        yield _call(parameters, sized, lambda: sized)
    for made, texts in configs(make, config, architecture):
        yield _call(parameters, given | {config.name: made}, lambda texts=texts: given | texts())  # type: ignore[misc]


def _parameters(make: Callable[..., Any]) -> list[inspect.Parameter]:
    """Those of a function or class; of a class that only passes `*args, **kwargs` on, those of its first base."""
    parameters = list(inspect.signature(make).parameters.values())
    is_passed_on = [each.kind for each in parameters] == [
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.VAR_KEYWORD,
    ]
    if inspect.isclass(make) and is_passed_on and make.__bases__[0] not in (nn.Module, object):
        return _parameters(make.__bases__[0])
    return parameters


def _call(parameters: list[inspect.Parameter], given: dict[str, Any], texts: Given) -> Call:
    first = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_ONLY]
    named = {name: value for name, value in given.items() if name not in first}
    return Call([given[name] for name in first if name in given], named, texts)


def _may_be_config(parameter: inspect.Parameter) -> bool:
    if parameter.default is parameter.empty or CONFIG.fullmatch(parameter.name):
        return parameter.annotation not in (int, float, bool, "int", "float", "bool")
    return False


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, int | float | str | None) else type(value).__name__
