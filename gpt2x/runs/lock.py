"""Locks of folders: one process at a time writes in them. The system releases the lock of a process that dies."""

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gpt2x.errors import UserError
from gpt2x.paths import shown

if sys.platform != "win32":
    import fcntl


LOCK = ".lock"
"""The lock of a run folder."""


class InUseError(UserError):
    """Another process holds the lock."""


@contextmanager
def locked(file: Path, setting: str, wait: bool = False) -> Iterator[None]:
    """Holds the lock of this name, in a folder that exists and that `setting` names, while the context lasts.

    Raises UserError if the file cannot be written and, unless it is to `wait`, InUseError if another process holds the
    lock: with the owner's process and host. On Windows, and on a file system without locks, nobody is kept out.
    """
    try:
        descriptor = _acquire(file, setting, wait)
    except OSError as error:
        raise UserError(
            f"{shown(file.parent)}: cannot be written ({error.strerror}); choose another folder with {setting}=DIR"
        ) from None
    try:
        yield
    finally:
        _release(descriptor, file)


def owner_of(file: Path) -> str | None:
    """The process and host that hold the lock of this name; None if nobody does.

    OSError if that cannot be found out: on Windows, and on a file system without locks.
    """
    try:
        descriptor = os.open(file, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        if sys.platform == "win32":
            raise OSError("no locks on Windows")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _owner(descriptor)
    finally:
        os.close(descriptor)
    return None


def _owner(descriptor: int) -> str:
    return os.read(descriptor, 1000).decode(errors="replace") or "another process"


def _acquire(file: Path, setting: str, wait: bool) -> int:
    """The descriptor of the open and locked file."""
    tries = 3
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            is_locked = _lock(descriptor, wait)
            if not is_locked and tries > 0:  # perhaps another process only looks at the lock: see owner_of
                tries -= 1
                os.close(descriptor)
                time.sleep(0.02)
                continue
            if not is_locked:
                owner = _owner(descriptor)
                raise InUseError(
                    f"{shown(file.parent)}: in use by {owner}; wait for its end, or give another {setting}"
                )
        except BaseException:
            os.close(descriptor)
            raise
        if not _is_open_file(descriptor, file):  # its owner removed it before it released the lock
            os.close(descriptor)
            continue
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        except OSError:
            _release(descriptor, file)
            raise
        return descriptor


def _lock(descriptor: int, wait: bool) -> bool:
    """Whether the lock was free."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # the file system has no locks
        pass
    return True


def _release(descriptor: int, file: Path) -> None:
    with suppress(OSError):  # the folder may have been removed
        if _is_open_file(descriptor, file):
            file.unlink()  # before the lock is released, so that no file remains
    os.close(descriptor)


def _is_open_file(descriptor: int, file: Path) -> bool:
    """Whether the file of this name is the one that is open."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False
