"""What a task returns to the command line."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2x.checkpoints.digest import weight_digests
from gpt2x.checkpoints.rows import WeightRow
from gpt2x.paths import write_text
from gpt2x.runs.tables import columns_of, row_values, to_csv

WEIGHTS = "weights.csv"

if TYPE_CHECKING:
    import torch

    from gpt2x.checkpoints.account import Account
    from gpt2x.checkpoints.load import Checkpoint


@lru_cache(maxsize=1)
def _weights_csv(account: "Account") -> str:
    """The content of weights.csv, which is made once for all jobs of a sweep that share a checkpoint."""
    return to_csv(columns_of(WeightRow), map(row_values, account.rows))


@dataclass
class Outcome:
    """How a task ended, and what the manifest records of it."""

    passed: bool = True
    """False if parity does not hold."""
    device: "torch.device | None" = None
    checkpoint: "Checkpoint | None" = None
    prints_text_alone: bool = False
    """Whether stdout has a generated text and nothing else, so that it can be redirected; the folder is on stderr."""
    results: Path | None = None
    """Where the results are of a task that reads other runs, and is none itself."""
    numbers: dict[str, float | None] = field(default_factory=dict)
    """The main results by name: what a search can optimize, and a tracker logs. None does not apply."""
    timings: dict[str, float] = field(default_factory=dict)
    """Stage -> seconds."""

    @property
    def finite_numbers(self) -> dict[str, float]:
        """The numbers that apply and are finite: neither JSON nor a search can use others."""
        return {name: value for name, value in self.numbers.items() if value is not None and isfinite(value)}

    def loaded(self, checkpoint: "Checkpoint", run_dir: Path) -> "Checkpoint":
        """Records the checkpoint, writes weights.csv unless its weights are random, and reports what was done to it.

        The weights.csv of an earlier checkpoint, which random weights replace, is removed. Returns the checkpoint.
        Raises UserError if the file cannot be written.
        """
        from gpt2x.reports.weights import tell

        self.checkpoint = checkpoint
        if checkpoint.account.rows:
            write_text(run_dir / WEIGHTS, _weights_csv(checkpoint.account))
        else:
            (run_dir / WEIGHTS).unlink(missing_ok=True)
        tell(checkpoint.account)
        return checkpoint

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the time that the block takes to the stage's time."""
        start = time.perf_counter()
        yield
        self.timings[stage] = self.timings.get(stage, 0.0) + time.perf_counter() - start

    def facts(self) -> dict[str, Any]:
        """The facts for manifest.json: times and, if they are known, the device, the threads and the checkpoint."""
        facts: dict[str, Any] = {"timings": self.timings}
        if self.device is not None:
            import torch

            facts |= {"device": str(self.device), "threads": torch.get_num_threads()}
        if self.checkpoint is not None:
            path = self.checkpoint.path
            facts["checkpoint"] = {
                "weights": self.checkpoint.weights,
                "path": str(path.resolve()) if path else None,
                "sha256": weight_digests(path),
                "tokenizer": self.checkpoint.tokenizer_source.facts(),
            }
        return facts
