"""subject.target: from `path/to/file.py:name` or `package.module:name` to a function that makes a model.

Importing executes the file, or the part of it that makes the model: there is no other way to get at the model in it.
"""

import inspect
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
from gpt2x.parity.subject.code import SubjectError, contained, in_one_line, subject_code
from gpt2x.parity.subject.importing.confined import TimeIsUpError, offline, own_arguments, running, time_limit
from gpt2x.parity.subject.importing.load import Loaded, load_file, load_module
from gpt2x.parity.subject.importing.placeholder import Placeholder
from gpt2x.paths import expanded, shown

# Hugging Face's name -> the names that people use for it, as found in nanoGPT, minGPT, the book "Build a Large
# Language Model (From Scratch)" (Raschka, 2024) and Hugging Face's own aliases.
_NAMES = {
    "vocab_size": ("vocab_size",),
    "n_positions": ("n_positions", "block_size", "context_length", "n_ctx"),
    "n_embd": ("n_embd", "emb_dim", "d_model", "hidden_size"),
    "n_head": ("n_head", "n_heads", "num_heads"),
    "n_layer": ("n_layer", "n_layers", "num_layers"),
    "layer_norm_epsilon": ("layer_norm_epsilon",),
}
_CONSTANTS: dict[str, Any] = {
    **dict.fromkeys(("dropout", "drop_rate", "embd_pdrop", "attn_pdrop", "resid_pdrop"), 0.0),
    **dict.fromkeys(("bias", "qkv_bias"), True),
    "model_type": None,  # minGPT requires the key, and None if the sizes are given
}


class Architecture(dict[str, Any]):
    """The sizes that a subject is built from, by item and by attribute, under all the names that people use."""

    def __init__(self, config: GPT2Config) -> None:
        sizes = {alias: getattr(config, name) for name, aliases in _NAMES.items() for alias in aliases}
        super().__init__(sizes | _CONSTANTS)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the architecture that gpt2x gives has no {name!r}{nearest(name, self)}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


@dataclass(frozen=True)
class Target:
    """What subject.target names: a class or function that makes the subject's model."""

    asked: SubjectConfig
    make: Callable[..., Any]
    loaded: Loaded

    @property
    def name(self) -> str:
        """The text of subject.target."""
        return str(self.asked.target)

    @property
    def notes(self) -> list[str]:
        """What was left out when the file was imported."""
        return self.loaded.notes

    def build(self, config: GPT2Config, dtype: torch.dtype) -> nn.Module:
        """The subject's model. Raises SubjectError if its code fails or returns anything but an nn.Module.

        For float64 the file is imported again, as it may make constants when it is imported.
        """
        target = import_target(self.asked) if dtype == torch.float64 else self
        with target.loaded.finder.active(), own_arguments(self.name):
            return call(target.make, config)


def call(make: Callable[..., Any], config: GPT2Config) -> nn.Module:
    """The model that a class or function makes, given the architecture or, if it takes no argument, nothing.

    Raises SubjectError if its code fails or returns anything but an nn.Module.
    """
    with subject_code():
        module = make(Architecture(config)) if _takes_an_argument(make) else make()
    if not isinstance(module, nn.Module):
        raise SubjectError(f"makes a {type(module).__name__}, not a torch.nn.Module")
    return module


def import_target(asked: SubjectConfig) -> Target:
    """Imports what subject.target names. Raises UserError if it cannot be imported, or lacks the name."""
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
            loaded = load_file(file, lazy=lazy) if file else load_module(where, lazy=lazy)
            with loaded.finder.active():
                make = _found(loaded.module, name, f"{setting}: no %r in {where}")
    except TimeIsUpError as error:
        limit = f"subject.import_seconds={asked.import_seconds:g}"
        raise UserError(f"{setting}: the import is not done after {limit}; it was at {running(error)}") from None
    except (Exception, SystemExit) as error:
        if isinstance(error, UserError) or is_out_of_memory(error):
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


def _takes_an_argument(make: Callable[..., Any]) -> bool:
    parameters = inspect.signature(make).parameters.values()
    return any(
        parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD) for parameter in parameters
    )
