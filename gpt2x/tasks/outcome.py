"""What a task tells the command line."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from gpt2x.checkpoints.load import Checkpoint


@dataclass
class Outcome:
    """What a task tells the command line."""

    passed: bool = True
    """False if parity does not hold."""
    device: "torch.device | None" = None
    checkpoint: "Checkpoint | None" = None
    timings: dict[str, float] = field(default_factory=dict)
    """Stage -> seconds."""

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.timings[stage] = self.timings.get(stage, 0.0) + time.perf_counter() - start
