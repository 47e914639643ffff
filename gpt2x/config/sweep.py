"""The settings of a sweep as a whole: they belong to the command, and are no part of any of its jobs."""

from dataclasses import dataclass

from gpt2x.config.checks import at_least, choose
from gpt2x.errors import UserError

OF_SWEEP = ("sweep", "retries", "fail_fast", "rerun")
"""The names of these settings."""


@dataclass
class SweepConfig:
    """How a sweep is named, and what it does with jobs that are done, or that fail."""

    sweep: str | None = None
    retries: int = 0
    fail_fast: bool = False
    rerun: str | None = None

    def __post_init__(self) -> None:
        if self.sweep is not None:
            _check_name(self.sweep)
        at_least("retries", self.retries, 0)
        if self.rerun is not None:
            choose("rerun", self.rerun, ("stale",))


def _check_name(name: str) -> None:
    """Raises UserError for a name that is not that of one folder, which a listing shows."""
    is_folder = name.isprintable() and not {"/", "\\"} & set(name) and name.strip() == name
    if not is_folder or not name or name.startswith((".", "-")) or len(name.encode(errors="replace")) > 200:
        raise UserError(f"sweep={name}: not the name of a folder; use letters, digits, - and _, such as sweep=nucleus")
