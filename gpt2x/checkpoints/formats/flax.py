"""Flax's msgpack files, which transformers wrote until version 5: nested dictionaries of arrays.

They are read here (https://github.com/msgpack/msgpack/blob/master/spec.md) and not by the package msgpack, which holds
an array twice while it reads it.
"""

from collections.abc import Iterator
from io import BufferedReader
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from gpt2x.checkpoints.contents import Contents, Layout
from gpt2x.errors import UserError
from gpt2x.paths import shown

_NDARRAY = 1  # the extension type of arrays in flax.serialization
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}
_DEPTH, _LONGEST_TEXT, _MOST_DIMENSIONS = 16, 1000, 8
_KINDS = {
    **{0xC4: ("bytes", 1), 0xC5: ("bytes", 2), 0xC6: ("bytes", 4)},
    **{0xC7: ("extension", 1), 0xC8: ("extension", 2), 0xC9: ("extension", 4)},
    **{0xCC: ("number", 1), 0xCD: ("number", 2), 0xCE: ("number", 4), 0xCF: ("number", 8)},
    **{0xD9: ("text", 1), 0xDA: ("text", 2), 0xDB: ("text", 4)},
    **{0xDC: ("list", 2), 0xDD: ("list", 4), 0xDE: ("map", 2), 0xDF: ("map", 4)},
}
"""First byte -> what begins there, and in how many bytes its size follows, or the value of a number."""


class Flax:
    """Files named *.msgpack."""

    name = "Flax msgpack"

    def matches(self, path: Path) -> bool:
        return path.suffix == ".msgpack"

    def read(self, path: Path) -> Contents:
        size = path.stat().st_size
        try:
            with path.open("rb") as file:
                tensors = dict(_tensors(file, size, ()))
                if file.tell() != size:
                    raise ValueError("more than one dictionary")
        except ValueError as error:
            raise UserError(f"{shown(path)}: truncated, or not a file of Flax ({str(error)[:80]})") from None
        # Flax's Conv1D keeps its kernel as [out, in], and transposes it in use.
        return Contents(self.name, tensors, Layout.LINEAR)


def _tensors(file: BufferedReader, size: int, path: tuple[str, ...]) -> Iterator[tuple[str, Tensor]]:
    """Path of keys, joined by slashes -> array, of what begins here in a file of `size` bytes.

    Raises ValueError for what is neither a dictionary nor an array.
    """
    kind, length = _head(file)
    if kind == "extension" and path:
        yield "/".join(path), _array(file, size, length)
    elif len(path) == _DEPTH:
        raise ValueError(f"dictionaries in more than {_DEPTH} levels")
    elif kind == "map":
        for _ in range(length):
            yield from _tensors(file, size, (*path, _text(file)))
    else:
        raise ValueError(f"a {kind} instead of a dictionary or an array")


def _array(file: BufferedReader, size: int, length: int) -> Tensor:
    """The array in an extension of `length` bytes: a list of its shape, its dtype and its values."""
    if _exactly(file, 1)[0] != _NDARRAY:
        raise ValueError("an extension that is no array")
    end = file.tell() + length
    if _expect(file, "list") != 3:
        raise ValueError("an array without shape, dtype and values")
    shape = [_expect(file, "number") for _ in range(_expect(file, "list", _MOST_DIMENSIONS))]
    name = _text(file)
    if name not in _DTYPES:
        raise ValueError(f"an array of {ascii(name)[:20]}")
    n_bytes = _expect(file, "bytes")
    if prod(shape) * _DTYPES[name].itemsize != n_bytes or file.tell() + n_bytes != end or end > size:
        raise ValueError("an array of another size than it declares")
    values = torch.empty(n_bytes, dtype=torch.uint8)
    if file.readinto(values.numpy().data) != n_bytes:
        raise ValueError("an array that is cut short")
    return values.view(_DTYPES[name]).view(shape)


def _expect(file: BufferedReader, kind: str, most: int | None = None) -> int:
    """The size, or the value of a number, of what must be of this kind. Raises ValueError where it is not."""
    found, value = _head(file)
    if found != kind or (most is not None and value > most):
        raise ValueError(f"a {found} of {value} instead of a {kind}")
    return value


def _text(file: BufferedReader) -> str:
    return _exactly(file, _expect(file, "text", _LONGEST_TEXT)).decode()


def _head(file: BufferedReader) -> tuple[str, int]:
    """The kind of what begins here, and its size, or the value of a number."""
    first = _exactly(file, 1)[0]
    if first < 0x80:
        return "number", first
    if first < 0xC0:
        kind, bits = ("map", 0x0F) if first < 0x90 else ("list", 0x0F) if first < 0xA0 else ("text", 0x1F)
        return kind, first & bits
    if first not in _KINDS:
        raise ValueError(f"a value that begins with the byte {first:#x}")
    kind, width = _KINDS[first]
    return kind, int.from_bytes(_exactly(file, width), "big")


def _exactly(file: BufferedReader, n: int) -> bytes:
    """The next n bytes. Raises ValueError where the file ends."""
    found = file.read(n)
    if len(found) != n:
        raise ValueError("the file ends in the middle")
    return found
