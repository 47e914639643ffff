"""Starts processes for subjects, by a server that has imported torch and run nothing. Importing this loads no torch.

A process of its own per subject takes seconds to import torch; one that is forked from the server takes milliseconds.
This process cannot be forked itself: it has threads, and the subject would find its state.
"""

import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

_PROGRAM = "import sys; sys.path[:] = {path!r}; from gpt2x.parity.process.server import main; main({descriptor})"
_STATUS = struct.Struct("!i")
_KEPT = 1 << 16  # bytes of what a process prints


def can_fork() -> bool:
    """Whether this platform has what the server needs. Windows has not: there a subject runs in this process."""
    return hasattr(os, "fork") and hasattr(socket, "send_fds")


@dataclass
class _Server:
    control: socket.socket
    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    owner: int
    """The process that has started it: one that is forked from that must start its own."""


_server: _Server | None = None
_lock = threading.Lock()


def begin_server() -> None:
    """Starts the server, if it is not running: what it imports takes seconds, and other work can be done meanwhile."""
    global _server
    with _lock:
        if _server is None or _server.owner != os.getpid() or _server.process.poll() is not None:
            _server = _started()


def _started() -> _Server:
    ours, theirs = socket.socketpair()
    errors = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the server runs
    program = _PROGRAM.format(path=[str(folder) for folder in sys.path], descriptor=theirs.fileno())
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", program],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        start_new_session=True,  # Ctrl-C is for gpt2x, which then ends its processes
    )
    theirs.close()
    return _Server(ours, process, errors, os.getpid())


class Forked:
    """A process that the server has forked. It ends when this object does."""

    def __init__(self) -> None:
        """If the server cannot start it, its connection is closed; see server_error."""
        self.connection, theirs = socket.socketpair()
        self._status, their_status = socket.socketpair()
        reader, writer = os.pipe()
        self._printed = _Printed(reader)
        try:
            begin_server()
            assert _server is not None
            with suppress(OSError):  # it has ended; then the connection is closed
                socket.send_fds(_server.control, [b"f"], [theirs.fileno(), their_status.fileno(), writer])
        finally:
            theirs.close()
            their_status.close()
            os.close(writer)

    def kill(self) -> None:
        """Ends it, and what it has started in its process group."""
        with suppress(OSError):  # the server may have ended, and all its processes with it
            self._status.shutdown(socket.SHUT_WR)

    def ended(self, seconds: float) -> int | None:
        """Its exit code, negative for a signal; None if it has not ended after `seconds`, or if the server has."""
        self._status.settimeout(seconds)
        try:
            found = self._status.recv(_STATUS.size)
        except OSError:
            return None
        return int(_STATUS.unpack(found)[0]) if len(found) == _STATUS.size else None

    def close(self) -> str:
        """Kills it if it runs; returns what it has printed, or the end of that."""
        self.kill()
        self.connection.close()
        self.ended(5)
        self._status.close()
        return self._printed.text()


def server_error() -> str:
    """The last line that the server has printed before it ended, if it has."""
    if _server is None:
        return ""
    try:
        _server.process.wait(1)
    except subprocess.TimeoutExpired:
        return ""
    _server.errors.seek(0)
    lines = _server.errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit code {_server.process.returncode}"


class _Printed:
    """Reads what a process prints, and keeps the end of it."""

    def __init__(self, descriptor: int) -> None:
        self._end = b""
        self._thread = threading.Thread(target=self._read, args=(descriptor,), daemon=True)
        self._thread.start()

    def _read(self, descriptor: int) -> None:
        with open(descriptor, "rb", buffering=0) as stream:  # a descriptor
            while read := stream.read(_KEPT):
                self._end = (self._end + read)[-_KEPT:]

    def text(self) -> str:
        """To be called after the process has ended; one that it has left behind may still hold the pipe."""
        self._thread.join(1)
        return self._end.decode(errors="replace")
