"""Which files a configuration means by its weights. Needs no torch, as it opens no weights file."""

import json
import re
from glob import escape
from pathlib import Path
from typing import Any

from gpt2x.checkpoints.tokenizer_files import tokenizer_files
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
    """Where the config.json and the tokenizer of a checkpoint are: in the directory itself, or in that of the file.

    Those of an adapter without a config.json are its base model's.
    """
    directory = path if path.is_dir() else path.parent
    base = base_of(path) if not (directory / "config.json").is_file() else None
    return directory if base is None else checkpoint_directory(base)


def small_files(path: Path) -> list[Path]:
    """The files of a checkpoint that hold no tensors: those that state its architecture and its tokenizer."""
    directory = checkpoint_directory(path)
    stated = (path / ADAPTER_CONFIG, directory / "config.json", directory / "hparams.json")
    return [*(file for file in stated if file.is_file()), *tokenizer_files(directory)]


_LONGEST_NAME = 255  # characters of a file's name, in all common file systems
_MOST_SHARDS = 1000
ADAPTER_CONFIG = "adapter_config.json"
_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
_WHOLE = ("model.safetensors", "pytorch_model.bin", "flax_model.msgpack", "tf_model.h5")
"""The file of weights in a Hugging Face directory, the first that is there; shards have an index of the same name."""


def weight_files(path: Path) -> list[Path]:
    """The files that hold a checkpoint's tensors: the file itself, or those of a directory, which may be shards.

    Those of an adapter are followed by its base model's. Raises UserError for a directory without such files, and
    for an index that names files elsewhere.
    """
    base = base_of(path)
    if base is not None:
        return [adapter_file(path), *weight_files(base)]
    bundle = bundle_of(path)
    if bundle is not None:
        return bundle
    if not path.is_dir():
        return [path]
    for name in _WHOLE:
        if (path / f"{name}.index.json").is_file():
            return _shards(path / f"{name}.index.json")
        if (path / name).is_file():
            return [path / name]
    raise UserError(f"{shown(path)}: none of {', '.join(_WHOLE)} is in this directory")


def base_of(adapter: Path) -> Path | None:
    """The base model of an adapter of peft; None for a path that is no adapter.

    It is the path that the adapter names, relative to the adapter or to the launch directory, or else the folder of
    this name in data. Raises UserError where there is none.
    """
    file = adapter / ADAPTER_CONFIG
    if not file.is_file():
        return None
    name = read_json(file).get("base_model_name_or_path")
    if not isinstance(name, str) or not name or "\0" in name:
        raise UserError(f"{shown(file)}: no base_model_name_or_path in it")
    found = next((path for path in (adapter / name, Path(name)) if path.exists()), None)
    leaf = name.rstrip("/").rpartition("/")[2]
    base = found or _in_data(leaf)
    if base is None:
        raise UserError(
            f"{shown(file)}: no base model {name[:80]!r}: put it into data/{leaf[:80]}/, or correct "
            "base_model_name_or_path"
        )
    if (base / ADAPTER_CONFIG).is_file():
        raise UserError(
            f"{shown(file)}: its base model {name[:80]!r} is an adapter, too; merge that one with peft first"
        )
    return base


def adapter_file(adapter: Path) -> Path:
    """The file with the tensors of an adapter. Raises UserError where there is none."""
    found = next((adapter / name for name in _ADAPTERS if (adapter / name).is_file()), None)
    if found is None:
        raise UserError(f"{shown(adapter)}: none of {', '.join(_ADAPTERS)} is in this directory")
    return found


def bundle_of(path: Path) -> list[Path] | None:
    """The index and the files of data of a TensorFlow checkpoint, named by its directory or its index; else None.

    Of several in a directory it is the one that the file `checkpoint` names. Raises UserError where that is none.
    """
    if path.suffix == ".index" and path.is_file():
        index = path
    elif path.is_dir() and (found := sorted(path.glob("*.index"))):
        index = found[0] if len(found) == 1 else _latest(path, found)
    else:
        return None
    shards = sorted(index.parent.glob(f"{escape(index.stem)}.data-*-of-*"))
    if not shards:
        raise UserError(f"{shown(index)}: no {index.stem}.data-00000-of-00001 beside it")
    return [index, *shards]


def _latest(directory: Path, indexes: list[Path]) -> Path:
    """The index of the checkpoint that TensorFlow's file `checkpoint` names as the latest."""
    file = directory / "checkpoint"
    said = file.read_text(encoding="utf-8", errors="replace")[:10_000] if file.is_file() else ""
    latest = re.search(r'^model_checkpoint_path: "(?:.*/)?([^"/]+)"', said, re.MULTILINE)
    index = directory / f"{latest[1]}.index" if latest else None
    if index not in indexes:
        names = ", ".join(each.name for each in indexes[:3])
        raise UserError(
            f"{shown(directory)}: several checkpoints, and `checkpoint` names none of them: give one of {names}"
        )
    return index


def _shards(index: Path) -> list[Path]:
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise UserError(f"{shown(index)}: no weight_map in it")
    names = sorted({str(name) for name in shards.values()})
    if len(names) > _MOST_SHARDS:
        raise UserError(f"{shown(index)}: names {len(names)} files, more than any GPT-2 has")
    elsewhere = next((name for name in names if not _is_file_name(name)), None)
    if elsewhere is not None:
        raise UserError(f"{shown(index)}: names the file {elsewhere[:80]!r}, which is not in this directory")
    return [index.parent / name for name in names]


def _is_file_name(name: str) -> bool:
    """Whether a file of a directory may have this name, which messages show."""
    return len(name) <= _LONGEST_NAME and name.isprintable() and not re.search(r"[/\\]", name)


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError where there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{shown(file)}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{shown(file)}: not JSON: {str(error)[:80]}") from None
    if not isinstance(content, dict):
        raise UserError(f"{shown(file)}: not a JSON object")
    return content
