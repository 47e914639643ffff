"""The measurement: each engine in turn, round by round, so that what the machine does meanwhile meets all alike."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from gpt2x.benchmark.worker import Worker
from gpt2x.config.tasks.benchmark import BenchmarkTask

# Seconds before a turn: threads of some OpenMP runtimes keep a core busy for 0.2 s after their work (KMP_BLOCKTIME).
_SETTLE = 0.25


@dataclass(frozen=True)
class Turn:
    """What an engine did in one round with a batch of prompts."""

    first_seconds: float
    """A generation of one token."""
    seconds: float
    """A generation of all new tokens."""
    tokens: list[list[int]]

    @property
    def step_seconds(self) -> float:
        """A token of every row, after the first."""
        return (self.seconds - self.first_seconds) / (len(self.tokens[0]) - 1)


@dataclass
class Measured:
    """One engine in one dtype."""

    worker: Worker
    load_seconds: float
    version: str
    turns: dict[int, list[Turn]] = field(default_factory=dict)
    """By batch size; one a round."""
    peak_rss: int = 0
    """Bytes, from the worker's start to its end; files that it has mapped count where they were read."""

    @property
    def name(self) -> tuple[str, str]:
        return self.worker.engine, self.worker.dtype


def draw_prompts(rows: int, n_tokens: int, vocab_size: int, seed: int) -> list[list[int]]:
    """Random token ids; no two rows begin with the same one, while there are enough."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(vocab_size, (rows, n_tokens), generator=generator)
    ids[:, 0] = torch.randperm(vocab_size, generator=generator)[torch.arange(rows) % vocab_size]
    return ids.tolist()


@contextmanager
def loaded(
    task: BenchmarkTask, directory: Path, threads: int, left_out: Callable[[str], None], advance: Callable[[str], None]
) -> Iterator[list[Measured]]:
    """The engines that can take part, loaded from a Hugging Face directory one after another.

    `left_out` gets a line for each of the others, `advance` one for each that is loaded.
    """
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker(engine, dtype, directory, threads))
            for dtype in dict.fromkeys(task.dtypes)
            for engine in dict.fromkeys(task.engines)
        ]
        missing = [worker.missing() for worker in workers]
        found = []
        for worker, reason in zip(workers, missing, strict=True):
            if reason is not None:
                left_out(f"{worker.engine} {worker.dtype}: left out, {reason}")
                worker.close()
                continue
            advance(f"loading {worker.engine} {worker.dtype}")
            if worker.ask("converts"):
                with Worker(worker.engine, worker.dtype, directory, threads) as converter:
                    converter.missing()
                    converter.ask("convert")
            found.append(Measured(worker, worker.ask("load"), worker.ask("version")))
        yield found


def measure(
    found: list[Measured], prompts: list[list[int]], task: BenchmarkTask, advance: Callable[[str], None]
) -> None:
    """Fills in the turns, after one that warms up, and the peak memory."""
    for batch in dict.fromkeys(task.batch_sizes):
        for number in range(-1, task.rounds):
            for each in found:
                advance(f"batch {batch}, {each.worker.engine} {each.worker.dtype}")
                time.sleep(_SETTLE)
                _, first_seconds = each.worker.ask("generate", prompts[:batch], 1)
                tokens, seconds = each.worker.ask("generate", prompts[:batch], task.new_tokens)
                if number >= 0:
                    each.turns.setdefault(batch, []).append(Turn(first_seconds, seconds, tokens))
    for each in found:
        each.peak_rss = each.worker.ask("peak_rss")
