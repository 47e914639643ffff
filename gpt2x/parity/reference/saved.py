"""Saved records: FILE.safetensors with the tensors, and FILE.json beside it with the texts and numbers."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt2x.checkpoints.load import Checkpoint
from gpt2x.checkpoints.names import dtype_name, to_file
from gpt2x.errors import UserError
from gpt2x.memory import is_out_of_memory
from gpt2x.parity.reference.record import Facts, Generation, Record, architecture_of
from gpt2x.parity.texts import TEXTS
from gpt2x.paths import shown, write_text, write_whole

_FORMAT = 1  # of the JSON file


def check_savable(path: Path) -> None:
    """Before the work: raises UserError if a record cannot have this name, or its folder cannot be made."""
    _json_file(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"task.save_reference={path}: {shown(path.parent)}: {error.strerror}") from None


def save_record(record: Record, path: Path) -> None:
    """Writes both files. Raises UserError if they cannot be written."""
    from safetensors.torch import save_file

    json_file = _json_file(path)
    tensors = {
        "logits": record.logits,
        "logits_in_dtype": record.logits_in_dtype,
        "context_losses": record.context_losses,
    }
    groups = {"inputs": record.inputs, "outputs": record.outputs, "gradients": record.gradients}
    for group, named in groups.items():
        tensors |= {f"{group}/{name}": tensor.contiguous() for name, tensor in named.items()}
    record.facts.digests = _digests(record.parameters)
    write_whole(path, lambda temporary: save_file({name: t.clone() for name, t in tensors.items()}, temporary))
    content = {"format": _FORMAT} | asdict(record.facts)
    write_text(json_file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def load_record(path: Path, checkpoint: Checkpoint) -> Record:
    """A saved record of the oracle with this checkpoint's weights.

    Raises UserError if it cannot be read, or was made with another dtype, another architecture or other weights.
    """
    from safetensors import SafetensorError

    json_file = _json_file(path)
    for file in (path, json_file):
        if not file.is_file():
            raise UserError(f"task.reference={path}: no file {shown(file)}; make it with task.save_reference={path}")
    try:
        record = _read(path, json_file, checkpoint)
    except (ValueError, TypeError, KeyError, OSError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        raise UserError(f"task.reference={path}: damaged, or no saved reference: {error!r}") from None
    _check_is_of(record, checkpoint, path)
    return record


def _read(path: Path, json_file: Path, checkpoint: Checkpoint) -> Record:
    from safetensors.torch import load_file

    facts, tensors = _read_facts(json_file), load_file(path)
    if facts.texts.keys() != {"prompt", *TEXTS}:
        raise ValueError("texts are missing")

    def group(name: str, sites: Iterable[str]) -> dict[str, Tensor]:
        return {site: tensors[f"{name}/{site}"] for site in sites}

    return Record(
        facts,
        {name.removeprefix("transformer."): tensor for name, tensor in to_file(checkpoint.model).items()},
        logits=tensors["logits"],
        logits_in_dtype=tensors["logits_in_dtype"],
        inputs=group("inputs", facts.sites),
        outputs=group("outputs", facts.sites),
        gradients=group("gradients", facts.gradient_norms),
        context_losses=tensors["context_losses"],
    )


def _read_facts(json_file: Path) -> Facts:
    content: dict[str, Any] = json.loads(json_file.read_text(encoding="utf-8"))
    if content.pop("format", None) != _FORMAT:
        raise UserError(
            f"{shown(json_file)}: written by another version of gpt2x; make it again with task.save_reference"
        )
    content["generations"] = [Generation(**each) for each in content["generations"]]
    return Facts(**content)


def _check_is_of(record: Record, checkpoint: Checkpoint, path: Path) -> None:
    """Raises UserError if the record was made in another dtype, with another architecture or with other weights."""
    facts = record.facts
    if facts.dtype != dtype_name(checkpoint.model.lm_head.weight.dtype):
        raise UserError(f"task.reference={path}: made in {facts.dtype}; add dtype={facts.dtype}")
    for key, value in architecture_of(checkpoint.model.config).items():
        if facts.architecture.get(key) != value:
            raise UserError(f"task.reference={path}: made with {key}={facts.architecture.get(key)}, not {value}")
    digests = _digests(record.parameters)
    if digests != facts.digests:
        names = [name for name in facts.digests if digests.get(name) != facts.digests[name]]
        what = f"{names[0]} is not" if names else "the tensors are not"
        raise UserError(
            f"task.reference={path}: made with other weights than {checkpoint.weights}: {what} the same; "
            "name the weights that it was made with by weights.path=FILE"
        )


def _json_file(path: Path) -> Path:
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: a saved reference is called FILE.safetensors, with FILE.json beside it")
    return path.with_suffix(".json")


def _digests(parameters: dict[str, Tensor]) -> dict[str, str]:
    return {
        name: hashlib.sha256(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
        for name, tensor in parameters.items()
    }
