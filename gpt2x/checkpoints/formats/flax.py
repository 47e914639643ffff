"""Flax's msgpack files, which transformers wrote until version 5: a nested dictionary of arrays."""

import mmap
import warnings
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt2x.checkpoints.contents import Contents, Layout
from gpt2x.errors import UserError
from gpt2x.memory import is_out_of_memory
from gpt2x.paths import shown
from gpt2x.visible import visible

_NDARRAY = 1  # the extension type of arrays in flax.serialization
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}
_DEPTH = 16


class Flax:
    """Files named *.msgpack."""

    name = "Flax msgpack"

    def matches(self, path: Path) -> bool:
        return path.suffix == ".msgpack"

    def read(self, path: Path) -> Contents:
        import msgpack

        def array(code: int, data: bytes) -> Tensor:
            if code != _NDARRAY:
                raise ValueError(f"extension {code}")
            shape, dtype, values = msgpack.unpackb(data, raw=False)
            return _array(shape, dtype, values)

        try:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                content = msgpack.unpackb(mapped, ext_hook=array, raw=False, strict_map_key=False)
        except OSError:
            raise
        except Exception as error:  # damaged bytes can raise any kind
            if is_out_of_memory(error):
                raise
            raise UserError(f"{shown(path)}: truncated, or not a file of Flax ({str(error)[:80]})") from None
        # Flax's Conv1D keeps its kernel as [out, in], and transposes it in use.
        return Contents(self.name, dict(_flat(content, (), path)), Layout.LINEAR)


def _array(shape: Any, dtype: Any, values: Any) -> Tensor:
    """Raises ValueError where these are not an array of numbers."""
    sizes = [size for size in shape if type(size) is int and size >= 0]
    if dtype not in _DTYPES or len(sizes) != len(shape):
        raise ValueError(f"an array of {str(dtype)[:20]}")
    if prod(sizes) * _DTYPES[dtype].itemsize != len(values):
        raise ValueError("an array of another size than it declares")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bytes cannot be written
        flat = torch.frombuffer(values, dtype=_DTYPES[dtype]) if values else torch.empty(0, dtype=_DTYPES[dtype])
    return flat.view(sizes)


def _flat(content: Any, path: tuple[str, ...], file: Path) -> Iterator[tuple[str, Tensor]]:
    """Path of keys, joined by slashes -> array."""
    if isinstance(content, Tensor) and path:
        yield "/".join(path), content
    elif isinstance(content, Mapping) and len(path) < _DEPTH:
        for key, value in content.items():
            yield from _flat(value, (*path, str(key)), file)
    else:
        where = visible("/".join(path))[:80] or "the whole"
        raise UserError(f"{shown(file)}: {where} is no array but a {type(content).__name__}")
