"""Checkpoints as the Python API names them: by the name of a model, by a path, or as a model that was loaded before."""

import os
from dataclasses import fields
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from gpt2x.checkpoints.load import Checkpoint, load_checkpoint
from gpt2x.checkpoints.names import dtype_name
from gpt2x.config.checks import check_dtype
from gpt2x.config.device import DeviceConfig
from gpt2x.config.model import ModelConfig
from gpt2x.config.options import build, names, option
from gpt2x.config.weights import WeightsConfig
from gpt2x.device import find_device, find_dtype
from gpt2x.errors import UserError, nearest
from gpt2x.model.gpt2 import GPT2
from gpt2x.model.kernels.int8 import Int8Linear
from gpt2x.tokenizer import Tokenizer

Model = str | os.PathLike[str] | GPT2 | tuple[GPT2, Tokenizer]
"""A model by its name, by the path of its weights, or as gpt2x.load returned it, with or without its tokenizer."""

# The rest of the checkpoint of each model that a caller of the API has, for as long as the model exists.
_remembered: WeakKeyDictionary[GPT2, dict[str, Any]] = WeakKeyDictionary()


def remember(checkpoint: Checkpoint) -> None:
    """From now on, checkpoint_of knows the checkpoint by its model."""
    _remembered[checkpoint.model] = {
        each.name: getattr(checkpoint, each.name) for each in fields(checkpoint) if each.name != "model"
    }


def checkpoint_of(model: Model) -> Checkpoint:
    """The checkpoint of a loaded model; or the one that is named, on the default device and in float32.

    Raises UserError if there is none.
    """
    if isinstance(model, tuple):
        model = model[0]
    if isinstance(model, (str, os.PathLike)):
        return read_named(model, weights="local", device="auto", dtype="float32", shared=True)
    if model not in _remembered:
        raise UserError(f"a {type(model).__name__} that gpt2x.load did not return: give that model, a name or a path")
    # Its caller may have converted the model since.
    return Checkpoint(**(_remembered[model] | {"model": model, "dtype": _computing_dtype(model)}))


def read_named(
    path_or_name: str | os.PathLike[str],
    weights: str,
    device: str,
    dtype: str,
    shared: bool,
    tokenizer: str | os.PathLike[str] | None = None,
) -> Checkpoint:
    """The checkpoint of the model with this name, or else the one at this path.

    The other arguments are values of the settings weights, device, dtype and weights.tokenizer; see load_checkpoint
    for `shared`. Raises UserError as load_checkpoint does, and where there is neither such a name nor such a path.
    """
    text, known = os.fspath(path_or_name), names("model")
    check_dtype("dtype", dtype)
    path = None
    if text not in known:
        if not Path(text).expanduser().exists():
            raise UserError(f"{text}: no such file, and not one of the models {', '.join(known)}{nearest(text, known)}")
        path = text
    named = None if tokenizer is None else os.fspath(tokenizer)
    source = option("weights", "local") | {"source": weights, "path": path, "tokenizer": named}
    return load_checkpoint(
        build(ModelConfig, "model.", option("model", "auto" if path else text)),
        build(WeightsConfig, "weights.", source),
        find_dtype(dtype),
        find_device(build(DeviceConfig, "device.", {"name": device}).name),
        shared,
    )


def _computing_dtype(model: GPT2) -> str:
    """The name of the dtype that a model computes in."""
    return "int8" if isinstance(model.lm_head, Int8Linear) else dtype_name(model.lm_head.weight.dtype)
