"""GGUF (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), read by the package `gguf`."""

import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpt2x.checkpoints.contents import Contents, Layout, stated
from gpt2x.checkpoints.rows import Step
from gpt2x.errors import UserError
from gpt2x.memory import is_out_of_memory
from gpt2x.paths import shown

_MOST_TENSORS, _MOST_FACTS = 20_000, 10_000
_FACTS = {
    "n_positions": "gpt2.context_length",
    "n_embd": "gpt2.embedding_length",
    "n_layer": "gpt2.block_count",
    "n_head": "gpt2.attention.head_count",
    "layer_norm_epsilon": "gpt2.attention.layer_norm_epsilon",
}


class Gguf:
    """Files that begin with `GGUF`, whatever their name."""

    name = "GGUF"

    def matches(self, path: Path) -> bool:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"

    def read(self, path: Path) -> Contents:
        from gguf import GGUFReader

        _check_counts(path)
        try:
            reader = GGUFReader(path)
            facts = {own: field.contents() for own in (*_FACTS.values(), _KIND) if (field := reader.get_field(own))}
        except (OSError, ImportError):
            raise
        except Exception as error:  # damaged bytes can raise any kind
            if is_out_of_memory(error):
                raise
            raise UserError(f"{shown(path)}: truncated, or not a GGUF file ({str(error)[:80]})") from None
        if facts.get(_KIND) != "gpt2":
            raise UserError(f"{shown(path)}: a GGUF file of the architecture {str(facts.get(_KIND))[:40]!r}, not gpt2")
        epsilon = facts.get(_FACTS["layer_norm_epsilon"])
        if isinstance(epsilon, float):  # float32 in the file: 1e-05 is meant, and not 9.99999974737875e-06
            facts[_FACTS["layer_norm_epsilon"]] = float(str(np.float32(epsilon)))
        tensors = {tensor.name: _tensor(tensor, path) for tensor in reader.tensors}
        kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
        rounded = {name: kind for name, kind in kinds.items() if kind not in _PLAIN}
        notes = (f"numbers that were rounded to {', '.join(sorted(set(rounded.values())))}",) if rounded else ()
        return Contents(
            self.name,
            tensors,
            Layout.LINEAR,
            stated("its metadata", facts, _FACTS, shown(path)),
            dict.fromkeys(rounded, (Step.CAST,)),
            rounded,
            notes,
        )


_KIND = "general.architecture"
_PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}


def _check_counts(path: Path) -> None:
    """Raises UserError for a header that declares more than any GPT-2 has."""
    with path.open("rb") as file:
        header = file.read(24)
    if len(header) < 24:
        raise UserError(f"{shown(path)}: truncated, in the header of GGUF")
    _, version, n_tensors, n_facts = struct.unpack("<4sIQQ", header)
    if version not in (2, 3):
        raise UserError(f"{shown(path)}: version {version} of GGUF; 2 and 3 are read, in little-endian order")
    if n_tensors > _MOST_TENSORS or n_facts > _MOST_FACTS:
        raise UserError(f"{shown(path)}: declares {n_tensors} tensors and {n_facts} facts, more than any GPT-2 has")


def _tensor(found: Any, path: Path) -> Tensor:
    """The tensor as [out, in]: mapped, or in float32 if its numbers are rounded to fewer bits."""
    from gguf.quants import dequantize

    kind = found.tensor_type.name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the mapped file cannot be written
        if kind in _PLAIN:
            return torch.from_numpy(found.data).view(_PLAIN[kind])
        try:
            return torch.from_numpy(dequantize(found.data, found.tensor_type))
        except (NotImplementedError, ValueError, KeyError):
            raise UserError(f"{shown(path)}: {found.name[:80]} is in {kind}, which is not read") from None
