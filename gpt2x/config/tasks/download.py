"""The settings of task=download."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass
class DownloadTask:
    """The weights and the tokenizer of a model, from the hub into data/."""

    uses: ClassVar[tuple[str, ...]] = ("model", "weights.revision")
    neutral: ClassVar[tuple[str, ...]] = ()

    name: str = "download"
