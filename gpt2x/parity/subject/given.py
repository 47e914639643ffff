"""Subjects that the caller of the Python API has as objects: a class, a function, or a model that is built already."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gpt2x.checkpoints.sizes import ARCHITECTURE, size_like
from gpt2x.errors import UserError
from gpt2x.model.config import GPT2Config
from gpt2x.parity.subject.code import contained, in_one_line
from gpt2x.parity.subject.constructing.make import make_model
from gpt2x.parity.subject.constructing.size import is_padded
from gpt2x.parity.subject.names import hf_name


@dataclass(frozen=True)
class GivenFactory:
    """A class or function that makes the subject's model."""

    make: Callable[..., Any]

    @property
    def name(self) -> str:
        return _name(self.make)

    @property
    def notes(self) -> list[str]:
        return []

    def build(self, config: GPT2Config, dtype: torch.dtype) -> nn.Module:
        """The subject's model, which nobody else has. A function may return one that exists already: it is copied.

        Raises SubjectError if its code fails or returns anything but an nn.Module, and UserError if that cannot be
        copied.
        """
        module, _ = make_model(self.name, self.make, config)
        return module if isinstance(self.make, type) else _copied(module, self.name)


@dataclass(frozen=True)
class GivenModule:
    """A model that is built already. It is never changed: each dtype gets a deep copy."""

    module: nn.Module

    @property
    def name(self) -> str:
        return _name(type(self.module))

    @property
    def notes(self) -> list[str]:
        return []

    def build(self, config: GPT2Config, dtype: torch.dtype) -> nn.Module:
        """A copy of the model, in the dtype that the model has. Raises UserError if it cannot be copied."""
        return _copied(self.module, self.name)


def _copied(module: nn.Module, name: str) -> nn.Module:
    try:
        with contained():
            return copy.deepcopy(module)
    except Exception as error:
        raise UserError(f"{name}: copy.deepcopy fails: {in_one_line(error)}; give its class") from error


def check_size(subject: GivenModule, rename: list[list[str]], expected: GPT2Config) -> None:
    """Raises UserError if the model was built with other sizes than `expected`, those of the reference.

    A size that cannot be seen, because no parameter has the name that tells it, is not checked.
    """
    shapes = {hf_name(own, rename): tensor.shape for own, tensor in subject.module.named_parameters()}
    layers = {name.split(".")[1] for name in shapes if name.startswith("h.")}
    found: dict[str, int] = {}
    for name, keys in {"wte.weight": ("vocab_size", "n_embd"), "wpe.weight": ("n_positions", "n_embd")}.items():
        if len(shapes.get(name, ())) == 2:
            found |= dict(zip(keys, shapes[name], strict=True))
    if layers:
        found["n_layer"] = len(layers)
    if is_padded(found.get("vocab_size", 0), expected.vocab_size):
        found["vocab_size"] = expected.vocab_size
    different = [key for key in ARCHITECTURE if key in found and found[key] != getattr(expected, key)]
    if not different:
        return
    ours, theirs = (", ".join(f"{key}={sizes[key]}" for key in different) for sizes in (found, vars(expected)))
    known = _known_size(found)
    fix = f"reference={known!r}" if known else "reference=PATH of a checkpoint of this size"
    raise UserError(f"{subject.name} has {ours}, but the reference has {theirs}: give {fix}")


def _known_size(found: dict[str, int]) -> str | None:
    """The name of the known size with these sizes, where all of them but n_head are seen."""
    unseen = ("n_head",)
    if {*found, *unseen} != set(ARCHITECTURE):
        return None
    return size_like(GPT2Config(**found, n_head=1), but_for=unseen)


def _name(made: Any) -> str:
    """The name of a class or function, without the module that it is defined in."""
    return getattr(made, "__qualname__", type(made).__qualname__).rpartition("<locals>.")[2]
