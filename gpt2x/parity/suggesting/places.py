"""Where the code of a module lies: found in the process of the subject, from its classes and functions."""

import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any, Protocol

from torch import nn

from gpt2x.parity.subject.code import is_users
from gpt2x.parity.subject.target import Target

_MOST = 200  # definitions


class Sited(Protocol):
    """A subject whose model is in this process."""

    @property
    def module(self) -> nn.Module: ...

    @property
    def sites(self) -> Mapping[str, nn.Module]:
        """Its modules by Hugging Face's names."""


@dataclass(frozen=True)
class Place:
    """A definition: a class, a function or a lambda, or the statement that binds a name."""

    file: str
    name: str
    """`GPT.forward`; for a lambda or a function within another, only what Python calls it."""
    line: int
    """The first line of a function; 0 for a class and a statement, which are found by their names."""


@dataclass(frozen=True)
class Places:
    """What is known of a module's code."""

    own_name: str
    """The name that the user's code has for the module, dotted; empty for the whole model."""
    parameters: dict[str, str]
    """weight or bias -> the attribute of the module that is this parameter, where it has one."""
    names: dict[str, str]
    """Hugging Face's name -> the user's, for all modules."""
    of_module: list[Place]
    """The definitions of the module itself, if they are the user's."""
    around: list[Place]
    """Those that the first ones use, those of the modules around it, from the inside out, and what made the model."""


def places_of(site: str, subject: Sited, target: Target) -> Places:
    """The code of the module at a site, which may also be the name of a parameter; of the model, if there is none."""
    while site and site not in subject.sites:
        site = site.rpartition(".")[0]
    own_names = {id(module): name for name, module in subject.module.named_modules()}
    names = {each: own_names[id(module)] for each, module in subject.sites.items() if id(module) in own_names}
    own_name = names.get(site, "")
    module = subject.module.get_submodule(own_name)
    inner = list(_definitions(_defined_by(module)))
    parents = own_name.split(".") if own_name else []
    chain = [subject.module.get_submodule(".".join(parents[:n])) for n in reversed(range(len(parents)))]
    outer = [*_used_by(_defined_by(module))]
    for each in chain:
        outer += _defined_by(each)
    outer.append(target.make)
    everything = [*outer, *_used_by(each for each in outer if _is_users(each))]
    around = [place for place in _definitions(everything) if place not in inner]
    around.append(Place(str(target.loaded.module.__file__), target.name.rpartition(":")[2].partition(".")[0], 0))
    return Places(own_name, _parameters(module), names, inner[:_MOST], list(dict.fromkeys(around))[:_MOST])


def _parameters(module: nn.Module) -> dict[str, str]:
    """The parameters of a norm or a linear layer: biases are made last, or named so."""
    names = [name for name, _ in module.named_parameters(recurse=False)]
    if len(names) != 2:
        return {}
    is_bias = [name.startswith(("b", "shift", "offset")) for name in names]
    weight, bias = reversed(names) if is_bias == [True, False] else names
    return {"weight": weight, "bias": bias}


def _defined_by(module: nn.Module) -> list[Any]:
    """The functions that are attributes of the module itself, and its classes."""
    functions = [getattr(value, "__func__", value) for value in vars(module).values()]
    return [each for each in (*functions, *type(module).__mro__) if _is_users(each)]


def _used_by(definitions: Iterable[Any]) -> list[Any]:
    """The user's functions and classes whose names the definitions use, and those that these use, and so on."""
    seen = {id(each): each for each in definitions}
    todo = list(seen.values())
    found: list[Any] = []
    while todo and len(found) < _MOST:
        for function in _functions(todo.pop(0)):
            named = [function.__globals__.get(name) for name in _names(function.__code__)]
            for each in (*_closed_over(function), *named):
                if id(each) not in seen and _is_users(each):
                    seen[id(each)] = each
                    found.append(each)
                    todo.append(each)
    return found


def _closed_over(function: FunctionType) -> Iterator[Any]:
    """The values of the variables that a function has from the function around it, also those in tuples and lists."""
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # it has no value
            value = cell.cell_contents
            yield from value if isinstance(value, tuple | list) else [value]


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _functions(definition: Any) -> list[FunctionType]:
    if isinstance(definition, FunctionType):
        return [definition]
    values = [getattr(value, "__func__", value) for value in vars(definition).values()]
    return [value for value in values if isinstance(value, FunctionType)]


def _is_users(value: Any) -> bool:
    if isinstance(value, FunctionType):
        return is_users(value.__code__.co_filename)
    return isinstance(value, type) and is_users(_file_of(value))


def _file_of(kind: type) -> str:
    """The file of a class; `<>` if it has none."""
    return getattr(sys.modules.get(kind.__module__), "__file__", None) or "<>"


def _definitions(values: Iterable[Any]) -> Iterator[Place]:
    for value in values:
        function = inspect.unwrap(value) if callable(value) else value
        if isinstance(function, FunctionType) and _is_users(function):
            code = function.__code__
            yield Place(code.co_filename, function.__qualname__, code.co_firstlineno)
        elif _is_users(value):
            yield Place(_file_of(value), value.__qualname__, 0)
