"""The settings of task=evaluate."""

from dataclasses import dataclass
from typing import ClassVar

from gpt2x.config.checks import at_least


@dataclass
class EvaluateTask:
    """How well does the model predict given texts?"""

    uses: ClassVar[tuple[str, ...]] = ("model", "weights", "device", "dtype", "prompts_file", "prompt_id")
    neutral: ClassVar[tuple[str, ...]] = ()

    name: str = "evaluate"
    data: str | None = None
    stride: int | None = None

    def __post_init__(self) -> None:
        at_least("task.stride", self.stride, 1)
