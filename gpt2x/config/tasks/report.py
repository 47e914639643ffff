"""The settings of task=report."""

from dataclasses import dataclass
from typing import ClassVar

from gpt2x.errors import UserError


@dataclass
class ReportTask:
    """What did these runs find? One HTML page about them."""

    uses: ClassVar[tuple[str, ...]] = ()
    neutral: ClassVar[tuple[str, ...]] = ()

    name: str = "report"
    runs: str | None = None

    def __post_init__(self) -> None:
        if self.runs is None:
            raise UserError(
                "task=report: name a run folder, the folder of a sweep, or one above, with task.runs=FOLDER"
            )
