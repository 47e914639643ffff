"""Recordings: FILE.safetensors with the logits and module outputs of any program, and the token ids that it was given.

gpt2x/parity/README.md describes the format for those who write it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor

from gpt2x.checkpoints.names import dtype_name
from gpt2x.errors import UserError, nearest
from gpt2x.memory import is_out_of_memory
from gpt2x.model.config import GPT2Config
from gpt2x.parity.measures import RELATIVE_TOLERANCE
from gpt2x.parity.reference.record import Record
from gpt2x.parity.reference.sound import is_finite
from gpt2x.parity.subject.names import hf_name
from gpt2x.paths import expanded, shown

LOGITS, LOGPROBS, OUTPUTS = "logits", "logprobs", "outputs/"
_CONTENT = f"a recording has {LOGITS} or {LOGPROBS} [T, V], and outputs of modules as {OUTPUTS}NAME [T, width]"
_DTYPES = tuple(map(dtype_name, RELATIVE_TOLERANCE))


@dataclass(frozen=True)
class Recording:
    """What a program answered. The tensors are in float64, which holds the recorded values exactly."""

    name: str
    """The text of subject.target."""
    ids: list[int]
    """The token ids that it was given, T of them."""
    dtype: str
    """The dtype that it computed in."""
    logits: Tensor
    """[T, V]."""
    are_logprobs: bool
    """Whether `logits` are log-probabilities: log_softmax has been applied."""
    outputs: dict[str, Tensor]
    """Site, by Hugging Face's name less `transformer.` -> the output of the module, [T, width]."""

    def refuse(self, why: str) -> NoReturn:
        """Raises the UserError that says what is wrong with the file."""
        raise UserError(f"subject.target={self.name}: {why}")

    def check_fits(self, config: GPT2Config, dtype: str) -> None:
        """Raises UserError if a model of this architecture cannot have given these logits, or not in `dtype`."""
        T, V = len(self.ids), config.vocab_size
        outside = next((id for id in self.ids if not 0 <= id < V), None)
        if outside is not None:
            self.refuse(f"token id {outside} is not in the reference's vocabulary of {V} tokens")
        if config.n_positions < T:
            self.refuse(f"{T} token ids do not fit in the reference's context of {config.n_positions}")
        if self.logits.shape != (T, V):
            name = LOGPROBS if self.are_logprobs else LOGITS
            self.refuse(f"{name} has the shape {list(self.logits.shape)}, not [T, V] = {[T, V]}")
        if self.dtype != dtype:
            self.refuse(f"recorded in {self.dtype}; add dtype={self.dtype}")

    def check_is_of(self, record: Record) -> None:
        """Raises UserError if the reference has answered other ids, or has no such modules."""
        if self.ids != record.facts.ids:
            self.refuse(f"holds other token ids than the saved reference: record {record.facts.ids}")
        for site, output in self.outputs.items():
            if site not in record.outputs:
                self.refuse(f"the reference has no module {site!r}{nearest(site, record.outputs)}")
            expected = record.outputs[site][0].shape
            if output.shape != expected:
                self.refuse(f"{OUTPUTS}{site} has the shape {list(output.shape)}, not {list(expected)}")


def read_recording(target: str, rename: list[list[str]]) -> Recording:
    """Reads FILE.safetensors, and, if that holds no ids, FILE.json beside it.

    `rename` are [regex, replacement] pairs from its names of modules to Hugging Face's. Raises UserError if the file
    is missing, damaged or not a recording, or holds values that are not finite.
    """
    path = expanded(target, "subject.target")
    try:
        metadata, tensors = _read(path)
        facts = _facts(metadata, path)
        logits, are_logprobs = _logits(tensors)
        outputs = {}
        for name, tensor in tensors.items():
            site = hf_name(name.removeprefix(OUTPUTS), rename)
            if name.startswith(OUTPUTS):
                if site in outputs:
                    raise _FormatError(f"two tensors are the output of {site}")
                outputs[site] = _values(name, tensor)
            elif tensor is not logits:
                raise _FormatError(f"{name!r} is no part of a recording: {_CONTENT}")
        values = _values(LOGPROBS if are_logprobs else LOGITS, logits)
        dtype = facts.get("dtype", dtype_name(logits.dtype))
        if dtype not in _DTYPES:
            raise _FormatError(f"dtype={dtype}: not one of {', '.join(_DTYPES)}")
        return Recording(target, _ids(facts), dtype, values, are_logprobs, outputs)
    except _FormatError as error:
        raise UserError(f"subject.target={target}: {error}") from None


class _FormatError(Exception):
    """Says what is wrong with a file."""


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise _FormatError(f"no file {shown(path)}")
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise _FormatError(f"damaged, or no safetensors file: {error}") from None


def _facts(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """What the file's metadata says, or else FILE.json beside it."""
    beside = path.with_suffix(".json")
    try:
        if "ids" in metadata:
            return {**metadata, "ids": json.loads(metadata["ids"])}
        facts = json.loads(beside.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _FormatError(
            f"no token ids: neither `ids` in the file's metadata, nor {shown(beside)} beside it"
        ) from None
    except (ValueError, OSError) as error:
        where = "`ids` in the metadata" if "ids" in metadata else shown(beside)
        raise _FormatError(f"{where} cannot be read as JSON: {error}") from None
    if not isinstance(facts, dict):
        raise _FormatError(f"{shown(beside)} holds no JSON object")
    return facts


def _ids(facts: Mapping[str, Any]) -> list[int]:
    ids = facts.get("ids")
    if not isinstance(ids, list) or not ids or not all(type(id) is int for id in ids):
        raise _FormatError("`ids` must be a list of the token ids that the program was given, such as [464, 2068]")
    return ids


def _logits(tensors: Mapping[str, Tensor]) -> tuple[Tensor, bool]:
    """The logits, and whether they are log-probabilities."""
    found = [name for name in (LOGITS, LOGPROBS) if name in tensors]
    if len(found) != 1:
        raise _FormatError(f"both {LOGITS} and {LOGPROBS}; leave one out" if found else f"no logits: {_CONTENT}")
    return tensors[found[0]], found == [LOGPROBS]


def _values(name: str, tensor: Tensor) -> Tensor:
    """A tensor [T, n] or [1, T, n] as [T, n] in float64."""
    if not tensor.is_floating_point():
        raise _FormatError(f"{name} holds {dtype_name(tensor.dtype)}, not floats")
    if not is_finite(tensor):
        n = int((~tensor.isfinite()).sum())
        raise _FormatError(f"{name} holds {n:,} values of {tensor.numel():,} that are NaN or infinite")
    return (tensor[0] if tensor.ndim == 3 and len(tensor) == 1 else tensor).double()
