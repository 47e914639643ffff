"""subject.target: from `path/to/file.py:name` or `package.module:name` to a function that makes a model.

Importing executes the file, or the part of it that makes the model: there is no other way to get at the model in it.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import nn

from gpt2x.config.subject import SubjectConfig
from gpt2x.errors import UserError, nearest
from gpt2x.memory import is_out_of_memory
from gpt2x.model.config import GPT2Config
from gpt2x.parity.subject.code import TimeIsUpError, contained, in_one_line
from gpt2x.parity.subject.constructing.constants import Constants
from gpt2x.parity.subject.constructing.make import make_model
from gpt2x.parity.subject.importing.confined import (
    offline,
    own_arguments,
    running,
    time_limit,
    without_tokenizers,
)
from gpt2x.parity.subject.importing.load import Loaded, load_file, load_module
from gpt2x.parity.subject.importing.placeholder import Placeholder
from gpt2x.paths import expanded, shown


@dataclass
class Target:
    """What subject.target names: a class or function that makes the subject's model."""

    asked: SubjectConfig
    make: Callable[..., Any]
    loaded: Loaded
    given: str = ""
    """What the model was made with; empty before it is made, and if it takes nothing."""

    @property
    def name(self) -> str:
        """The text of subject.target."""
        return str(self.asked.target)

    @property
    def notes(self) -> list[str]:
        """What the model was made with, and what was left out when the file was imported."""
        return [*([f"made with {self.given}"] if self.given else []), *self.loaded.notes]

    @property
    def _is_whole(self) -> bool:
        return self.asked.import_mode == "whole"

    def build(self, config: GPT2Config, dtype: torch.dtype) -> nn.Module:
        """The subject's model. Raises SubjectError if its code fails or returns anything but an nn.Module.

        The file is imported again, with the sizes of `config` in its constants; if it is imported as a whole, then
        only for float64, as it may make tensors. Raises FixedSizeError if the model has another size.
        """
        constants = Constants(config)
        target = self if self._is_whole and dtype != torch.float64 else import_target(self.asked, constants)
        with target.loaded.finder.active(), own_arguments(self.name), without_tokenizers():
            module, given = make_model(self.name, target.make, config)
        # Configs in the file get the sizes too, but they matter only if the model was given none.
        texts = [
            given,
            *(f"{name}={value}" for name, value in constants.set.items() if name.isidentifier() or not given),
        ]
        self.given, self.loaded = ", ".join(filter(None, texts)), target.loaded
        return module


def import_target(asked: SubjectConfig, constants: Constants | None = None) -> Target:
    """Imports what subject.target names. Raises UserError if it cannot be imported, or lacks the name.

    `constants` gives the file's constants the sizes of an architecture, by default of the 124M model.
    """
    after = constants or Constants(GPT2Config())
    where, _, name = str(asked.target).rpartition(":")
    setting = f"subject.target={asked.target}"
    if not where or not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"{setting}: write path/to/file.py:name or package.module:name")
    file = expanded(where, "subject.target").resolve() if where.endswith(".py") else None
    if file is not None and not file.is_file():
        raise UserError(f"{setting}: no file {shown(file)}")
    lazy = asked.import_mode == "definitions"
    try:
        with contained(), own_arguments(where), time_limit(asked.import_seconds), offline() if lazy else nullcontext():
            loaded = load_file(file, after, lazy=lazy) if file else load_module(where, after, lazy=lazy)
            with loaded.finder.active():
                make = _found(loaded.module, name, f"{setting}: no %r in {where}")
    except TimeIsUpError as error:
        limit = f"subject.import_seconds={asked.import_seconds:g}"
        raise UserError(f"{setting}: the import is not done after {limit}; it was at {running(error)}") from None
    except BaseException as error:
        if isinstance(error, UserError | KeyboardInterrupt) or is_out_of_memory(error):
            raise
        raise UserError(f"{setting}: cannot be imported: {in_one_line(error)}") from error
    if isinstance(make, Placeholder):
        raise UserError(f"{setting}: cannot be imported: {make.why}")
    if isinstance(make, nn.Module) or not callable(make):
        raise UserError(f"{setting}: a {type(make).__name__}; name a class, or a function that makes it")
    return Target(asked, make, loaded)


def _found(module: ModuleType, name: str, missing: str) -> Any:
    """The object of a dotted name in a module. Raises UserError with the message `missing` % part if there is none."""
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise UserError(missing % part + nearest(part, dir(found)))
        found = getattr(found, part)
    return found
