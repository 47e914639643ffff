"""The settings of task=collect."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass
class CollectTask:
    """The tables of many runs as one, and the state of each run, from their folders alone."""

    uses: ClassVar[tuple[str, ...]] = ("sweep",)
    neutral: ClassVar[tuple[str, ...]] = ()

    name: str = "collect"
    runs: str | None = None
