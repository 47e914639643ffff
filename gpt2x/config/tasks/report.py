"""The settings of task=report."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass
class ReportTask:
    """What did these runs find? One HTML page about them."""

    uses: ClassVar[tuple[str, ...]] = ("sweep",)
    neutral: ClassVar[tuple[str, ...]] = ()

    name: str = "report"
    runs: str | None = None
