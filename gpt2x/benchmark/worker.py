"""One process per engine and dtype, with its own memory and threads. It answers one question at a time."""

import contextlib
import io
import multiprocessing
import os
import signal
import sys
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from gpt2x.benchmark.engines import Baseline, Converter, Engine, EngineModule, Timed, Variant
from gpt2x.process import free_rounding

_GRACE = 5.0  # seconds until a process that does not end by itself is terminated
_IMPORTING, _GENERATING = "it was imported", "it generated"


class EngineError(Exception):
    """An engine failed: while doing what, and why, in one line."""


class Worker:
    """The parent's end of a worker. The process starts with the imports, in parallel with those of other workers.

    Every method raises EngineError if the engine fails, or if its process dies.
    """

    def __init__(self, variant: Variant, directory: Path, threads: int) -> None:
        self.variant = variant
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, _Session(variant, directory, threads)))
        self._process.start()
        theirs.close()

    def unavailable(self) -> str | None:
        """Waits for the imports; to be called first, and once. Returns why the engine cannot run here, if so."""
        reason: str | None = self._answer(_IMPORTING)
        return reason

    def version(self) -> str:
        """The version of the engine's package."""
        version: str = self._ask("version", _IMPORTING)
        return version

    def has_format(self) -> bool:
        """Whether the engine has its own file format, so that the checkpoint has to be converted."""
        has: bool = self._ask("has_format", _IMPORTING)
        return has

    def convert(self) -> None:
        """Writes the checkpoint in the engine's own format."""
        self._ask("convert", "it converted the checkpoint")

    def load(self) -> float:
        """Loads the checkpoint; returns the seconds that it took."""
        seconds: float = self._ask("load", "it loaded the checkpoint")
        return seconds

    def generate(self, prompts: list[list[int]], new_tokens: int) -> tuple[list[list[int]], float]:
        """The new tokens of each prompt, and the seconds that they took."""
        tokens, seconds = self._ask("generate", _GENERATING, prompts, new_tokens)
        return tokens, seconds

    def first_seconds(self, prompts: list[list[int]]) -> float:
        """The seconds until the prompts that were continued last had their first new token."""
        seconds: float = self._ask("first_seconds", _GENERATING, prompts)
        return seconds

    def margin(self, ids: list[int]) -> float:
        """The difference between the two largest logits of the token after `ids`; only baselines know it."""
        margin: float = self._ask("margin", "it computed logits", ids)
        return margin

    def peak_rss(self) -> int:
        """The largest resident memory of the process so far, in bytes."""
        peak: int = self._ask("peak_rss", _GENERATING)
        return peak

    def close(self) -> None:
        """Ends the process. It ends by itself when the connection is closed, unless it is busy."""
        self._connection.close()
        self._process.join(_GRACE)
        self._process.terminate()
        self._process.join()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _ask(self, question: str, doing: str, *args: Any) -> Any:
        with contextlib.suppress(OSError):  # the process has died, which _answer reports
            self._connection.send((question, args))
        return self._answer(doing)

    def _answer(self, doing: str) -> Any:
        try:
            failed, answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            raise EngineError(
                f"its process has died while {doing} (exit code {self._process.exitcode}), perhaps for lack of "
                "memory; name fewer task.engines, or smaller task.batch_sizes"
            ) from None
        if failed:
            raise EngineError(f"failed while {doing}: {answer}")
        return answer


class _Session:
    """The worker's end: each method answers a question."""

    module: EngineModule
    model: Engine

    def __init__(self, variant: Variant, directory: Path, threads: int) -> None:
        self.variant, self.directory, self.threads = variant, directory, threads

    def unavailable(self) -> str | None:
        try:
            self.module = self.variant.entry.load()
        except ImportError as error:
            return f"not installed ({error})"
        dtype = self.variant.dtype
        return None if dtype in self.module.dtypes() else f"has no {dtype} on this machine"

    def version(self) -> str:
        return self.variant.entry.version()

    def has_format(self) -> bool:
        return isinstance(self.module, Converter)

    def convert(self) -> None:
        assert isinstance(self.module, Converter)
        with contextlib.redirect_stderr(io.StringIO()):  # progress bars, and warnings of the tracer
            self.module.convert(self.directory, self.variant.dtype)

    def load(self) -> float:
        """The files were written just now and are in the page cache."""
        start = time.perf_counter()
        self.model = self.module.Engine(self.directory, self.variant.dtype, self.threads)
        return time.perf_counter() - start

    def generate(self, prompts: list[list[int]], new_tokens: int) -> tuple[list[list[int]], float]:
        start = time.perf_counter()
        tokens = self.model.generate(prompts, new_tokens)
        return tokens, time.perf_counter() - start

    def first_seconds(self, prompts: list[list[int]]) -> float:
        return self.model.first_seconds if isinstance(self.model, Timed) else self.generate(prompts, 1)[1]

    def margin(self, ids: list[int]) -> float:
        assert isinstance(self.model, Baseline)
        return self.model.margin(ids)

    def peak_rss(self) -> int:
        # On Linux not getrusage: there, a process starts with the peak of the process that started it.
        status = Path("/proc/self/status")
        if status.is_file():
            facts = dict(line.split(":", 1) for line in status.read_text().splitlines())
            return int(facts["VmHWM"].removesuffix("kB")) * 1024
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _serve(connection: Connection, session: _Session) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent as well, which ends this process
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    free_rounding()
    question: str = "unavailable"
    args: tuple[Any, ...] = ()
    while True:
        try:
            answer = False, getattr(session, question)(*args)
        except Exception as error:
            answer = True, _in_one_line(error)
        try:
            connection.send(answer)
            question, args = connection.recv()
        except (EOFError, OSError):  # the parent has closed the connection, or has died
            return


def _in_one_line(error: Exception) -> str:
    """`IndexError: list index out of range (ctranslate2.py, line 34)`."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"{type(error).__name__}: {' '.join(str(error).split())[:300]} ({Path(last.filename).name}, line {last.lineno})"
    )
