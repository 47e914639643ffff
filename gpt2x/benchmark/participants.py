"""The engines that take part in a benchmark. One that fails is left out, and the others go on."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gpt2x.benchmark.engines import Variant
from gpt2x.benchmark.measured import Measured
from gpt2x.benchmark.worker import EngineError, Worker

Progress = Callable[[str, int, int | None], None]
"""Called as progress(what is being done, steps done, steps in all or None if that is not known)."""


@dataclass(frozen=True)
class LeftOut:
    """An engine that was asked for and has no rows."""

    variant: Variant
    reason: str
    failed: bool
    """True if it was started and failed; False if it is not installed, or does not have the dtype on this machine."""


@dataclass
class Participant:
    """A running engine, and what was measured of it."""

    worker: Worker
    measured: Measured


@dataclass
class Participants:
    """The engines that take part, in the order of the settings, and those that were left out."""

    running: list[Participant] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def measured(self) -> list[Measured]:
        return [each.measured for each in self.running]

    def leave_out(self, worker: Worker, reason: str, failed: bool) -> None:
        self.running = [each for each in self.running if each.worker is not worker]
        self.left_out.append(LeftOut(worker.variant, reason, failed))
        worker.close()

    @contextmanager
    def guarded(self, worker: Worker) -> Iterator[None]:
        """An EngineError inside the context ends the context and leaves this engine out; it is not raised further."""
        try:
            yield
        except EngineError as error:
            self.leave_out(worker, str(error), failed=True)


@contextmanager
def loaded(variants: list[Variant], directory: Path, threads: int, progress: Progress) -> Iterator[Participants]:
    """The engines that can take part, loaded one after another from a directory in Hugging Face's format."""
    participants = Participants()
    with ExitStack() as stack:
        waiting = []
        for worker in [stack.enter_context(Worker(variant, directory, threads)) for variant in variants]:
            with participants.guarded(worker):
                reason = worker.unavailable()
                if reason is None:
                    waiting.append(worker)
                else:
                    participants.leave_out(worker, reason, failed=False)
        for done, worker in enumerate(waiting):  # after all imports, which would slow down the loading
            progress(f"loading {worker.variant}", done, len(waiting))
            with participants.guarded(worker):
                if worker.has_format():
                    _convert(worker.variant, directory, threads)
                participants.running.append(
                    Participant(worker, Measured(worker.variant, worker.load(), worker.version()))
                )
        yield participants


def _convert(variant: Variant, directory: Path, threads: int) -> None:
    """Converts in a separate process, so that the memory that it takes does not count as the engine's."""
    with Worker(variant, directory, threads) as converter:
        converter.unavailable()
        converter.convert()
