"""Messages between gpt2x and the process of a subject: JSON, beside it tensors in memory that both processes map.

What is received is data: no byte of it is unpickled or executed.
"""

import json
import mmap
import os
import socket
import struct
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_LENGTH = struct.Struct("!Q")
_LARGEST = 1 << 28  # bytes of JSON
_ALIGNED = 64  # bytes
_TENSOR = "$tensor"
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.bfloat16, torch.float16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}


class ClosedError(Exception):
    """The other end is closed: its process has ended."""


class UnreadableError(Exception):
    """What has arrived is no message."""


class Channel:
    """One end of a connection. A message is made of dictionaries, lists, texts, numbers, booleans, None and tensors."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, message: Any) -> None:
        """Raises ClosedError if nobody listens."""
        memory = _Memory()
        try:
            text = json.dumps(_packed(message, memory)).encode()
            self._connection.settimeout(None)
            files = [memory.file] if memory.file is not None else []
            socket.send_fds(self._connection, [_LENGTH.pack(len(text))], files)
            self._connection.sendall(text)
        except OSError as error:
            raise ClosedError from error
        finally:
            memory.close()

    def receive(self, seconds: float | None = None) -> Any:
        """The next message. Its tensors are the receiver's own, on the CPU.

        Raises TimeoutError after `seconds`, ClosedError, or UnreadableError.
        """
        until = None if seconds is None else time.monotonic() + seconds
        try:
            self._wait_until(until)
            start, files, _, _ = socket.recv_fds(self._connection, _LENGTH.size, 1)
            length: int = _LENGTH.unpack(start + self._read(_LENGTH.size - len(start), until))[0]
            if length > _LARGEST:
                raise UnreadableError(f"a message of {length} bytes")
            text = self._read(length, until)
        except TimeoutError:
            raise
        except OSError as error:
            raise ClosedError from error
        mapped = _mapped(files)
        try:
            return _unpacked(json.loads(text), mapped, {})
        except (ValueError, TypeError, KeyError, RuntimeError, RecursionError) as error:
            raise UnreadableError(str(error)) from error

    def _read(self, n: int, until: float | None) -> bytes:
        parts = []
        while n:
            self._wait_until(until)
            parts.append(self._connection.recv(min(n, 1 << 20)))
            if not parts[-1]:
                raise ClosedError
            n -= len(parts[-1])
        return b"".join(parts)

    def _wait_until(self, until: float | None) -> None:
        """The next read raises TimeoutError at this time."""
        self._connection.settimeout(None if until is None else max(1e-3, until - time.monotonic()))


class _Memory:
    """Anonymous memory, as a file that another process can map; none before the first tensor is written."""

    def __init__(self) -> None:
        self.file: int | None = None
        self._size = 0
        self._places: dict[int, tuple[Tensor, int]] = {}

    def write(self, tensor: Tensor) -> int:
        """The place of a tensor's bytes. A tensor that is in several places of a message is written once."""
        if id(tensor) not in self._places:
            if self.file is None:
                self.file = _anonymous_file()
            place = -(-self._size // _ALIGNED) * _ALIGNED
            content = memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
            self._size = place + len(content)
            os.lseek(self.file, place, os.SEEK_SET)
            while content:
                content = content[os.write(self.file, content) :]
            self._places[id(tensor)] = tensor, place
        return self._places[id(tensor)][1]

    def close(self) -> None:
        if self.file is not None:
            os.close(self.file)


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("gpt2x")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _mapped(files: list[int]) -> mmap.mmap | None:
    """The memory that arrived with a message."""
    try:
        size = os.fstat(files[0]).st_size if files else 0
        return mmap.mmap(files[0], size, access=mmap.ACCESS_COPY) if size else None
    finally:
        for file in files:
            os.close(file)


def _packed(value: Any, memory: _Memory) -> Any:
    if isinstance(value, Tensor):
        name = str(value.dtype).removeprefix("torch.")
        if name not in _DTYPES or value.layout != torch.strided:
            raise TypeError(f"a tensor of {value.layout} {value.dtype}")
        return {_TENSOR: [name, list(value.shape), memory.write(value) if value.numel() else 0]}
    if isinstance(value, Mapping):
        return {str(key): _packed(each, memory) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_packed(each, memory) for each in value]
    return value


def _unpacked(value: Any, mapped: mmap.mmap | None, made: dict[tuple[str, str, int], Tensor]) -> Any:
    """`made` are the tensors so far, so that one that is in several places is one object again."""
    if isinstance(value, list):
        return [_unpacked(each, mapped, made) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() != {_TENSOR}:
        return {key: _unpacked(each, mapped, made) for key, each in value.items()}
    name, shape, place = value[_TENSOR]
    key = name, str(shape), place
    if key not in made:
        made[key] = _tensor(_DTYPES[name], torch.Size(shape), place, mapped)
    return made[key]


def _tensor(dtype: torch.dtype, shape: torch.Size, place: int, mapped: mmap.mmap | None) -> Tensor:
    n = shape.numel()
    if min(shape, default=0) < 0 or n == 0 or mapped is None:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(mapped, dtype=dtype, count=n, offset=place).reshape(shape)
