"""The server: imports what subjects need, runs nothing, and forks a process for each subject until gpt2x has ended."""

import gc
import io
import os
import selectors
import signal
import socket
import struct
import sys
import traceback
from contextlib import suppress
from typing import NoReturn

from gpt2x.parity.process.child import serve

_STATUS = struct.Struct("!i")


def main(descriptor: int) -> NoReturn:
    """Serves requests that arrive on a socket: a byte, and the descriptors of connection, status and output."""
    control = socket.socket(fileno=descriptor)
    os.chdir("/")  # so that the folder can be removed
    gc.collect()
    gc.freeze()  # what is imported lives for ever, and its pages stay shared
    wake, waker = socket.socketpair()
    wake.setblocking(False)
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    running: dict[int, socket.socket] = {}  # process -> the socket on which its end is reported
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    selector.register(wake, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is control:
                data, (connection, status, output) = _request(control)
                if not data:
                    for process in running:
                        _kill(process)
                    os._exit(0)
                process = os.fork()
                if process == 0:
                    _in_child(connection, output, [control, wake, waker, *running.values()], selector, status)
                os.close(connection)
                os.close(output)
                running[process] = socket.socket(fileno=status)
                selector.register(running[process], selectors.EVENT_READ, process)
            elif key.fileobj is wake:
                wake.recv(4096)
                _report(running, selector)
            elif key.data in running:
                _kill(key.data)  # gpt2x has closed the socket
                selector.unregister(key.fileobj)


def _request(control: socket.socket) -> tuple[bytes, list[int]]:
    data, descriptors, _, _ = socket.recv_fds(control, 1, 3)
    return data, descriptors if data else [-1, -1, -1]


def _report(running: dict[int, socket.socket], selector: selectors.BaseSelector) -> None:
    """Reports the processes that have ended."""
    while running:
        process, status = os.waitpid(-1, os.WNOHANG)
        if not process:
            return
        reported = running.pop(process)
        with suppress(KeyError):  # it was killed
            selector.unregister(reported)
        with suppress(OSError):  # perhaps nobody wants to know
            reported.send(_STATUS.pack(os.waitstatus_to_exitcode(status)))
        reported.close()


def _kill(process: int) -> None:
    for kill in (os.killpg, os.kill):
        with suppress(OSError):
            kill(process, signal.SIGKILL)


def _in_child(
    connection: int, output: int, others: list[socket.socket], selector: selectors.BaseSelector, status: int
) -> NoReturn:
    try:
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        selector.close()
        for other in others:
            other.close()
        os.close(status)
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        os.close(output)
        sys.stdin = _text_stream(0, "r")
        sys.stdout = _text_stream(1, "w")
        sys.stderr = _text_stream(2, "w")
        serve(socket.socket(fileno=connection))
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def _text_stream(descriptor: int, mode: str) -> io.TextIOWrapper:
    """Line by line, so that little is lost when the process is killed."""
    binary = io.FileIO(descriptor, mode, closefd=False)
    return io.TextIOWrapper(
        io.BufferedReader(binary) if mode == "r" else io.BufferedWriter(binary),
        "utf-8",
        "backslashreplace",
        line_buffering=True,
    )
