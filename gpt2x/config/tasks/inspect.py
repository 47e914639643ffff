"""The settings of task=inspect."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass
class InspectTask:
    """What is in this checkpoint, and what is done to it when it is loaded?"""

    uses: ClassVar[tuple[str, ...]] = ("model", "weights")
    neutral: ClassVar[tuple[str, ...]] = ()

    name: str = "inspect"
