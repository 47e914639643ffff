"""OpenAI's checkpoints: TensorFlow's TensorBundle, read without TensorFlow.

A bundle is an index, which is a sorted table of LevelDB (name -> place of the tensor), and files of data
(https://github.com/tensorflow/tensorflow/tree/master/tensorflow/core/util/tensor_bundle,
https://github.com/google/leveldb/blob/main/doc/table_format.md).
"""

from collections.abc import Iterator
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from gpt2x.checkpoints.contents import Contents, Layout
from gpt2x.checkpoints.locate import bundle_of
from gpt2x.errors import UserError
from gpt2x.paths import shown

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_MOST_BYTES = 1 << 26  # of an index; that of GPT-2 XL has 20 kB
_DTYPES = {1: torch.float32, 2: torch.float64, 3: torch.int32, 9: torch.int64, 14: torch.bfloat16, 19: torch.float16}
"""TensorFlow's numbers (types.proto)."""


class TensorBundle:
    """Directories with an index of TensorFlow, and the index itself."""

    name = "TensorFlow checkpoint"

    def matches(self, path: Path) -> bool:
        return bundle_of(path) is not None

    def read(self, path: Path) -> Contents:
        bundle = bundle_of(path)
        assert bundle is not None  # matches says so
        index, *shards = bundle
        if index.stat().st_size > _MOST_BYTES:
            raise UserError(f"{shown(index)}: larger than the index of any GPT-2")
        data = [_mapped(shard) for shard in shards]
        tensors = {}
        try:
            for key, value in _table(index.read_bytes()):
                if key:  # the entry without a name describes the bundle
                    tensors[key.decode()] = _tensor(value, data)
        except (IndexError, ValueError) as error:
            raise UserError(
                f"{shown(index)}: truncated, or not a checkpoint of TensorFlow ({str(error)[:80]})"
            ) from None
        return Contents(self.name, tensors, Layout.CONV1D)


def _mapped(file: Path) -> Tensor:
    """The bytes of a file, memory-mapped [N]."""
    if not file.is_file():
        raise UserError(f"{shown(file)}: not a file")
    if file.stat().st_size == 0:
        raise UserError(f"{shown(file)}: the file is empty")
    return torch.from_file(str(file), shared=False, size=file.stat().st_size, dtype=torch.uint8)


def _tensor(entry: bytes, data: list[Tensor]) -> Tensor:
    """The tensor that a BundleEntryProto describes. Raises ValueError where it is not in the data."""
    fields = dict(_message(entry))
    dtype, shard, offset, size = (int(fields.get(number, 0)) for number in (1, 3, 4, 5))
    if dtype not in _DTYPES:
        raise ValueError(f"a tensor of TensorFlow's type {dtype}")
    if 7 in fields:
        raise ValueError("a tensor in slices")
    shape = [
        int(dict(_message(_bytes(dim))).get(1, 0))
        for number, dim in _message(_bytes(fields.get(2, b"")))
        if number == 2
    ]
    kind = _DTYPES[dtype]
    if shard >= len(data) or offset + size > len(data[shard]) or prod(shape) * kind.itemsize != size:
        raise ValueError("a tensor that is not in the file of data")
    values = data[shard][offset : offset + size]
    if offset % kind.itemsize:  # another tensor before it has numbers of another size
        values = values.clone()
    tensor = values.view(kind).view(shape)
    return tensor[0] if len(shape) == 3 and shape[0] == 1 else tensor  # OpenAI's matrices are [1, in, out]


def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Key -> value of a sorted table. Raises ValueError or IndexError where it is damaged."""
    footer = content[-_FOOTER:]
    if len(footer) < _FOOTER or int.from_bytes(footer[-8:], "little") != _MAGIC:
        raise ValueError("no table")
    place = _varint(footer, _varint(footer, 0)[1])[1]  # after the handle of the meta-index
    for _, handle in _block(content, footer[place:]):
        yield from _block(content, handle)


def _block(content: bytes, handle: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The entries of the block at a handle, whose keys share prefixes with the key before."""
    offset, next_one = _varint(handle, 0)
    size = _varint(handle, next_one)[0]
    block = content[offset : offset + size]
    if len(block) < max(size, 4) or content[offset + size] != 0:
        raise ValueError("a block that is compressed, or not in the file")
    end = size - 4 - 4 * int.from_bytes(block[-4:], "little")  # places of restarts follow the entries
    place, key = 0, b""
    while place < end:
        shared, place = _varint(block, place)
        own, place = _varint(block, place)
        length, place = _varint(block, place)
        if place + own + length > end:
            raise ValueError("an entry beyond its block")
        key = key[:shared] + block[place : place + own]
        yield key, block[place + own : place + own + length]
        place += own + length


def _message(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number -> value of the fields of a protocol buffer (https://protobuf.dev/programming-guides/encoding/)."""
    place = 0
    while place < len(content):
        tag, place = _varint(content, place)
        kind = tag & 7
        if kind == 0:
            value, place = _varint(content, place)
            yield tag >> 3, value
            continue
        size = {1: 8, 5: 4}.get(kind)
        if kind == 2:
            size, place = _varint(content, place)
        if size is None or place + size > len(content):
            raise ValueError("a field of an unknown kind")
        yield tag >> 3, content[place : place + size]
        place += size


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number for a message")
    return value


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """The number at a place, and the place after it."""
    value = 0
    for count in range(10):
        byte = content[place + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, place + count + 1
    raise ValueError("a number that does not end")
