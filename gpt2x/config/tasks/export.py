"""The settings of task=export."""

from dataclasses import dataclass
from typing import ClassVar

from gpt2x.config.checks import choose
from gpt2x.errors import UserError

FORMATS = ("hf", "pt", "nanogpt", "llmc", "gguf", "onnx")


@dataclass
class ExportTask:
    """Writes a model in another format, and proves that what it wrote is the same model."""

    uses: ClassVar[tuple[str, ...]] = ("model", "weights", "dtype")
    neutral: ClassVar[tuple[str, ...]] = ()

    name: str = "export"
    format: str | None = None
    path: str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.format is None:
            raise UserError(f"task=export: name a format with task.format=NAME: {', '.join(FORMATS)}")
        choose("task.format", self.format, FORMATS)
