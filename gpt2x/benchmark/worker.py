"""A process an engine and dtype, so that its memory and its threads are its own; it does what it is asked, in turn."""

import contextlib
import importlib
import io
import multiprocessing
import os
import signal
import sys
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

from gpt2x.errors import UserError

_GRACE = 5.0  # seconds


class Worker:
    """The parent's end of it; the worker begins with its imports, which others may do at the same time."""

    def __init__(self, engine: str, dtype: str, directory: Path, threads: int) -> None:
        self.engine, self.dtype = engine, dtype
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, _Session(engine, dtype, directory, threads)))
        self._process.start()
        theirs.close()

    def missing(self) -> str | None:
        """Waits for the imports; why this engine cannot take part, if it cannot."""
        return self._answer()

    def ask(self, question: str, *args: Any) -> Any:
        """What the method of _Session returns; RuntimeError with the worker's traceback if it raises."""
        with contextlib.suppress(OSError):  # it has died, of which the answer tells
            self._connection.send((question, args))
        return self._answer()

    def _answer(self) -> Any:
        try:
            failed, answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            raise UserError(
                f"task.engines: the process of {self.engine} in {self.dtype} has died (exit code "
                f"{self._process.exitcode}), of too little memory perhaps; name fewer, or smaller task.batch_sizes"
            ) from None
        if failed:
            raise RuntimeError(f"{self.engine} in {self.dtype}:\n{answer}")
        return answer

    def close(self) -> None:
        """Ends the process: it goes by itself when nobody can ask any more, unless it is at work."""
        self._connection.close()
        self._process.join(_GRACE)
        self._process.terminate()
        self._process.join()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Session:
    """The worker's end: each method is a question, the first of which is asked by itself."""

    module: ModuleType
    model: Any

    def __init__(self, engine: str, dtype: str, directory: Path, threads: int) -> None:
        self.engine, self.dtype, self.directory, self.threads = engine, dtype, directory, threads

    def missing(self) -> str | None:
        try:
            self.module = importlib.import_module(f"gpt2x.benchmark.engines.{self.engine}")
        except ImportError as error:
            return f"not installed ({error})"
        return None if self.dtype in self.module.dtypes() else f"has no {self.dtype} on this machine"

    def version(self) -> str:
        package = self.engine.removesuffix("_lookup")
        return importlib.import_module(package).__version__.partition("-")[0]  # OpenVINO adds its build

    def converts(self) -> bool:
        return hasattr(self.module, "convert")

    def convert(self) -> None:
        with contextlib.redirect_stderr(io.StringIO()):  # progress bars, and the tracer's warnings
            self.module.convert(self.directory, self.dtype)

    def load(self) -> float:
        """Seconds, of files that were just written and so lie in the page cache."""
        start = time.perf_counter()
        self.model = self.module.Engine(self.directory, self.dtype, self.threads)
        return time.perf_counter() - start

    def generate(self, prompts: list[list[int]], new_tokens: int) -> tuple[list[list[int]], float]:
        """New tokens, and seconds."""
        start = time.perf_counter()
        tokens = self.model.generate(prompts, new_tokens)
        return tokens, time.perf_counter() - start

    def margin(self, ids: list[int]) -> float:
        return self.model.margin(ids)

    def peak_rss(self) -> int:
        """Bytes. On Linux not of getrusage, where a process begins with the peak of the one that started it."""
        status = Path("/proc/self/status")
        if status.is_file():
            facts = dict(line.split(":", 1) for line in status.read_text().splitlines())
            return int(facts["VmHWM"].removesuffix("kB")) * 1024
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _serve(connection: Connection, session: _Session) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends this process
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    question, args = "missing", ()
    while True:
        try:
            answer = False, getattr(session, question)(*args)
        except Exception:
            answer = True, traceback.format_exc()
        try:
            connection.send(answer)
            question, args = connection.recv()
        except (EOFError, OSError):  # the parent is gone
            return
