"""Keeps a file that is being imported from gpt2x's arguments, from standard input and the network, and to a time."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn
from unittest.mock import patch

from gpt2x.parity.subject.code import TimeIsUpError, in_one_line, own_frames
from gpt2x.parity.subject.importing.placeholder import Placeholder
from gpt2x.paths import shown


@contextmanager
def without_tokenizers() -> Iterator[None]:
    """A tokenizer of tiktoken that cannot be loaded is a placeholder: models keep one only for generating text."""
    tiktoken = sys.modules.get("tiktoken")
    if tiktoken is None:
        yield
        return
    load = tiktoken.get_encoding

    def load_if_possible(name: str) -> Any:
        try:
            return load(name)
        except Exception as error:
            return Placeholder(in_one_line(error), harmless=True)

    with patch.object(tiktoken, "get_encoding", load_if_possible):
        yield


@contextmanager
def own_arguments(file: str) -> Iterator[None]:
    """The file sees a command line without arguments, and an empty standard input."""
    with Path(os.devnull).open() as nothing, patch.object(sys, "argv", [file]), patch.object(sys, "stdin", nothing):
        yield


@contextmanager
def offline() -> Iterator[None]:
    """Connections fail at once."""

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise OSError("a file that is imported may not use the network")

    with patch.object(socket.socket, "connect", refuse), patch.object(socket, "getaddrinfo", refuse):
        yield


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeIsUpError in the code within if it takes longer. Only the main thread can be interrupted so.

    Where it is within another time limit, that one holds again afterwards, less what has passed.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise TimeIsUpError

    before = signal.signal(signal.SIGALRM, stop)
    start = time.monotonic()
    # again each second, should the code catch the exception
    outer, interval = signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        yield
    finally:
        left = max(1e-3, outer - (time.monotonic() - start)) if outer else 0
        signal.setitimer(signal.ITIMER_REAL, left, interval)
        signal.signal(signal.SIGALRM, before)


def running(error: TimeIsUpError) -> str:
    """`train.py, line 88: for step in range(max_steps):` for the statement of the user's file that was running."""
    frames = [frame for frame in own_frames(error) if frame.name == "<module>"] or own_frames(error)
    return f"{shown(Path(frames[-1].filename))}, line {frames[-1].lineno}: {frames[-1].line}" if frames else "an import"
