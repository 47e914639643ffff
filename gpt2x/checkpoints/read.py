"""Formats: a path to named tensors, memory-mapped, in the names and layout of the file."""

import pickle
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from gpt2x.checkpoints.locate import checkpoint_directory, read_json, weight_files
from gpt2x.checkpoints.sizes import ARCHITECTURE
from gpt2x.errors import UserError
from gpt2x.model.config import GPT2Config
from gpt2x.paths import shown

# What transformers' GPT2Config can say that changes the function, and the value this model has built in.
_BUILT_IN = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors file, a torch.save'd state dict, or a Hugging Face directory.

    Nothing is read until used: the tensors are views of the mapped file. Raises UserError for what is
    not a checkpoint, and for pickles that carry anything but tensors, without running them.
    """
    tensors: dict[str, Tensor] = {}
    for file in weight_files(path):
        if not file.is_file():
            raise UserError(f"{shown(file)}: no such file")
        if file.stat().st_size == 0:
            raise UserError(f"{shown(file)}: the file is empty")
        try:
            tensors |= _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickle(file)
        except OSError as error:
            raise UserError(f"{shown(file)}: cannot be read: {error.strerror or error}") from None
    return tensors


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"{shown(file)}: truncated, or not a safetensors file ({error})") from None


def _read_pickle(file: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols: what cannot be read is told below
            # Files from before torch 1.6 are no zip archives and cannot be mapped.
            loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except OSError:
        raise
    except Exception as error:  # of any kind, from bytes of any kind
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise UserError(
                f"{shown(file)}: refused, because it holds more than tensors and loading it could run code; "
                "save model.state_dict() instead"
            ) from None
        raise UserError(f"{shown(file)}: truncated, or not a state dict that torch.save wrote") from None
    if not isinstance(loaded, dict) or not loaded:
        raise UserError(f"{shown(file)}: not a state dict but a {type(loaded).__name__}; save model.state_dict()")
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UserError(
                f"{shown(file)}: not a state dict: {name!r} is a {type(value).__name__}; save model.state_dict()"
            )
    return loaded


def read_config(path: Path) -> GPT2Config | None:
    """The architecture in config.json, in or beside `path`; None without one.

    Raises UserError where config.json asks for what this GPT-2 does not do.
    """
    file = checkpoint_directory(path) / "config.json"
    if not file.is_file():
        return None
    config = read_json(file)
    if config.get("model_type", "gpt2") != "gpt2":
        raise UserError(f"{shown(file)}: model_type is {config['model_type']!r}, not 'gpt2'")
    built_in = _BUILT_IN | {"n_inner": (None, 4 * config.get("n_embd", GPT2Config.n_embd))}
    for key, allowed in built_in.items():
        if config.get(key, allowed[0]) not in allowed:
            raise UserError(f"{shown(file)}: {key}={config[key]!r} is not supported, only {allowed[0]!r}")
    default = GPT2Config()
    keys = (*ARCHITECTURE, "layer_norm_epsilon")
    try:
        return GPT2Config(**{key: config.get(key, getattr(default, key)) for key in keys})
    except (ValueError, TypeError) as error:
        raise UserError(f"{shown(file)}: {error}") from None
