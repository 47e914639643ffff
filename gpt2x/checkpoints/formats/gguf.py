"""GGUF (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), read by the package `gguf`."""

import mmap
import struct
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from gpt2x.checkpoints.contents import Contents, Layout, stated
from gpt2x.checkpoints.formats.format import MOST_TENSORS
from gpt2x.checkpoints.rows import Step
from gpt2x.errors import UserError
from gpt2x.memory import is_out_of_memory
from gpt2x.paths import shown

_MOST_FACTS, _MOST_VALUES = 10_000, 500_000
_WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_TEXT, _ARRAY = 8, 9
"""Kinds of values: numbers by their widths in bytes, and two that are not numbers."""
_LONGEST = 1 << 40  # bytes: beyond the end of every file, and in the range of a place in one
_ROWS = 128  # that are expanded at a time
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

        _check_facts(path)
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
        notes = (
            (f"the file holds numbers that were rounded to {', '.join(sorted(set(rounded.values())))}",)
            if rounded
            else ()
        )
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


def _check_facts(path: Path) -> None:
    """Raises UserError for facts that are not in the file, or more of them than any GPT-2 has.

    The package reads every value of an array by itself, and as many as the file declares, whether it has them or not.
    """
    with path.open("rb") as file:
        try:
            _, version, n_tensors, n_facts = struct.unpack("<4sIQQ", file.read(24))
            if version not in (2, 3):
                raise UserError(f"{shown(path)}: version {version} of GGUF; 2 and 3 are read, in little-endian order")
            declared = f"{n_tensors} tensors and {n_facts} facts"
            too_many, n_values = n_tensors > MOST_TENSORS or n_facts > _MOST_FACTS, 0
            for _ in range(n_facts if not too_many else 0):
                n_values += _skip_fact(file)
                if n_values > _MOST_VALUES:
                    declared, too_many = f"{n_values} values in its facts", True
                    break
        except struct.error:
            raise UserError(f"{shown(path)}: truncated, in the header of GGUF") from None
        except ValueError as error:
            raise UserError(f"{shown(path)}: truncated, or not a GGUF file ({error})") from None
        if too_many:
            raise UserError(f"{shown(path)}: declares {declared}, more than any GPT-2 has")
        if file.tell() > path.stat().st_size:
            raise UserError(f"{shown(path)}: truncated, in the header of GGUF")


def _skip_fact(file: BinaryIO) -> int:
    """Skips a name and its value; returns the number of values, in an array too. Raises ValueError for other kinds."""
    _skip(file, _TEXT, 1)
    kind, n = _numbers(file, "<I")[0], 1
    if kind == _ARRAY:
        kind, n = _numbers(file, "<IQ")
    if kind != _TEXT and kind not in _WIDTHS:
        raise ValueError(f"a value of kind {kind}")
    if n <= _MOST_VALUES:
        _skip(file, kind, n)
    return n


def _skip(file: BinaryIO, kind: int, n: int) -> None:
    """Skips n values of a kind, which may be beyond the end of the file."""
    if kind in _WIDTHS:
        file.seek(n * _WIDTHS[kind], 1)
        return
    for _ in range(n):
        (length,) = _numbers(file, "<Q")
        file.seek(min(length, _LONGEST), 1)


def _numbers(file: BinaryIO, form: str) -> tuple[int, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))


def _tensor(found: Any, path: Path) -> Tensor:
    """The tensor as [out, in]: mapped, or in float32 if its numbers are rounded to fewer bits."""
    kind = found.tensor_type.name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the mapped file cannot be written
        if kind in _PLAIN:
            return torch.from_numpy(found.data).view(_PLAIN[kind])
        try:
            return _expanded(found.data, found.tensor_type)
        except (NotImplementedError, ValueError, KeyError):
            raise UserError(f"{shown(path)}: {found.name[:80]} is in {kind}, which is not read") from None


def _expanded(data: Any, kind: Any) -> Tensor:
    """Numbers that are rounded to fewer bits, in float32: some rows at a time, as the package needs as much again."""
    from gguf.quants import dequantize, quant_shape_from_byte_shape

    if data.ndim != 2:
        return torch.from_numpy(dequantize(data, kind))
    values = torch.empty(quant_shape_from_byte_shape(data.shape, kind))
    for start in range(0, len(data), _ROWS):
        values[start : start + _ROWS] = torch.from_numpy(dequantize(data[start : start + _ROWS], kind))
        _release(data)
    return values


def _release(data: Any) -> None:
    """Gives the pages of the mapped file back: what was read of it counts as memory of this process until then."""
    while isinstance(data, np.ndarray):
        data = data.base
    if isinstance(data, mmap.mmap) and hasattr(data, "madvise"):  # Windows has no such call
        data.madvise(mmap.MADV_DONTNEED)
