"""Which files a configuration means by its weights. Needs no torch, as it opens no weights file."""

import json
from pathlib import Path
from typing import Any

from gpt2x.config.model import ModelConfig
from gpt2x.config.weights import WeightsConfig
from gpt2x.errors import UserError
from gpt2x.paths import bundled, expanded, shown


def find_weights(model: ModelConfig, weights: WeightsConfig) -> Path | None:
    """The file or directory to load; None for weights=random. Raises UserError where there is none.

    With local, that is weights.path, else the data folder in the launch directory, else the bundled data folder. With
    auto, the Hugging Face cache and the hub come next; model=auto then means gpt2.
    """
    found = find_local_weights(model, weights)
    if found is not None or weights.source == "random":
        return found
    name = _name_of_file(model)
    if weights.source == "auto":
        from gpt2x.checkpoints.hub import fetch

        return fetch(name, model.hub, weights.revision)
    raise UserError(
        f"no weights for {name}: put {name}_weights.safetensors or {name}_weights.pt into data/, "
        "or name a file with weights.path=FILE, or download them with weights=auto"
    )


def find_local_weights(model: ModelConfig, weights: WeightsConfig) -> Path | None:
    """What find_weights finds before it asks the Hugging Face cache and the hub; None if there is no such file.

    Raises UserError if weights.path does not exist, and if weights.revision is given although local weights come first.
    """
    if weights.source == "random":
        return None
    if weights.path is not None:
        path = expanded(weights.path, "weights.path")
        try:
            path.stat()
        except OSError as error:
            raise UserError(f"weights.path={weights.path}: {error.strerror}") from None
        return path
    found = _in_data(_name_of_file(model))
    if found is not None and weights.revision is not None:
        raise UserError(f"weights.revision={weights.revision}: {shown(found)} is used before the hub; move it away")
    if found is None and model.name == "auto" and weights.source == "local":
        found = _in_data("nano")
    return found


def _name_of_file(model: ModelConfig) -> str:
    return "gpt2" if model.name == "auto" else model.name


def _in_data(name: str) -> Path | None:
    for data in (Path("data"), bundled("data")):
        for file in (data / f"{name}_weights.safetensors", data / f"{name}_weights.pt"):
            if file.is_file() or file.is_symlink():  # the reader reports a broken link
                return file
        if (data / name / "config.json").is_file():  # without it, the folder holds a vocabulary only
            return data / name
    return None


def checkpoint_directory(path: Path) -> Path:
    """Where the config.json and the tokenizer of a checkpoint are: in the directory itself, or in that of the file."""
    return path if path.is_dir() else path.parent


def small_files(path: Path) -> list[Path]:
    """The files of a checkpoint that hold no tensors: those that state its architecture and its tokenizer."""
    names = ("config.json", "vocab.json", "merges.txt", "tokenizer.json")
    return [file for name in names if (file := checkpoint_directory(path) / name).is_file()]


_WHOLE = ("model.safetensors", "pytorch_model.bin")
"""The file of weights in a Hugging Face directory, the first that is there; shards have an index of the same name."""


def weight_files(path: Path) -> list[Path]:
    """The files that hold a checkpoint's tensors: the file itself, or those of a directory, which may be shards.

    Raises UserError for a directory without them, and for an index that names files elsewhere.
    """
    if not path.is_dir():
        return [path]
    for name in _WHOLE:
        if (path / f"{name}.index.json").is_file():
            return _shards(path / f"{name}.index.json")
        if (path / name).is_file():
            return [path / name]
    raise UserError(f"{shown(path)}: no {' or '.join(_WHOLE)} in this directory")


def _shards(index: Path) -> list[Path]:
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise UserError(f"{shown(index)}: no weight_map in it")
    names = sorted({str(name) for name in shards.values()})
    elsewhere = next((name for name in names if "/" in name or "\\" in name or "\0" in name), None)
    if elsewhere is not None:
        raise UserError(f"{shown(index)}: names the file {elsewhere[:80]!r}, which is not in this directory")
    return [index.parent / name for name in names]


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError where there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{shown(file)}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{shown(file)}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{shown(file)}: not a JSON object")
    return content
