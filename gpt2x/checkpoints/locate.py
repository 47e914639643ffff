"""Which files a configuration means by its weights. Touches no tensor, and needs no torch."""

import json
from pathlib import Path

from gpt2x.config.model import ModelConfig
from gpt2x.config.weights import WeightsConfig
from gpt2x.errors import UserError
from gpt2x.paths import bundled, shown


def find_weights(model: ModelConfig, weights: WeightsConfig) -> Path | None:
    """The file or directory to load, or None for weights=random; UserError if there is none.

    local: weights.path, else the data folder of the launch directory, else the bundled one.
    auto: the same, then the Hugging Face cache, then the hub; model=auto then means gpt2.
    """
    if weights.source == "random":
        return None
    if weights.path is not None:
        path = Path(weights.path).expanduser()
        try:
            path.stat()
        except OSError as error:
            raise UserError(f"weights.path={weights.path}: {error.strerror}") from None
        return path
    name = "gpt2" if model.name == "auto" else model.name
    found = _in_data(name)
    if found is not None and weights.revision is not None:
        raise UserError(f"weights.revision={weights.revision}: {shown(found)} is used before the hub; move it away")
    if found is None and weights.source == "auto":
        from gpt2x.checkpoints.hub import fetch

        return fetch(name, model.hub, weights.revision)
    if found is None and model.name == "auto":
        found = _in_data("nano")
    if found is None:
        raise UserError(
            f"no weights for {name}: put {name}_weights.safetensors or {name}_weights.pt into data/, "
            "or name a file with weights.path=FILE, or download them with weights=auto"
        )
    return found


def _in_data(name: str) -> Path | None:
    for data in (Path("data"), bundled("data")):
        for file in (data / f"{name}_weights.safetensors", data / f"{name}_weights.pt"):
            if file.is_file() or file.is_symlink():  # a broken link is for the reader to complain of
                return file
        if (data / name / "config.json").is_file():  # data/gpt2 may hold the vocabulary only
            return data / name
    return None


def checkpoint_directory(path: Path) -> Path:
    """Where a checkpoint's config.json and tokenizer would be: the directory itself, or the file's."""
    return path if path.is_dir() else path.parent


def weight_files(path: Path) -> list[Path]:
    """The files that hold a checkpoint's tensors: itself, or model.safetensors or its shards."""
    if path.is_file():
        return [path]
    index = path / "model.safetensors.index.json"
    if index.is_file():
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict):
            raise UserError(f"{shown(index)}: no weight_map in it")
        return sorted({path / str(name) for name in shards.values()})
    if (path / "model.safetensors").is_file():
        return [path / "model.safetensors"]
    raise UserError(f"{shown(path)}: no model.safetensors in this directory")


def read_json(file: Path) -> dict:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{shown(file)}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{shown(file)}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{shown(file)}: not a JSON object")
    return content
