"""The settings of task=train."""

from dataclasses import dataclass
from typing import ClassVar

from omegaconf import MISSING

from gpt2x.config.checks import at_least, choose
from gpt2x.errors import UserError


@dataclass
class TrainTask:
    """Trains a small model from scratch, or fine-tunes existing weights."""

    uses: ClassVar[tuple[str, ...]] = ("model", "weights", "device", "seed")
    neutral: ClassVar[tuple[str, ...]] = ()

    name: str = "train"
    data: str | None = None
    steps: int = MISSING
    batch_size: int = MISSING
    lr: float = MISSING
    min_lr: float = MISSING
    warmup_steps: int = MISSING
    weight_decay: float = MISSING
    beta2: float = MISSING
    grad_clip: float = MISSING
    dropout: float = MISSING
    eval_every: int = MISSING
    save_dtype: str = MISSING

    def __post_init__(self) -> None:
        for key in ("steps", "batch_size", "eval_every"):
            at_least(f"task.{key}", getattr(self, key), 1)
        for key in ("min_lr", "warmup_steps", "weight_decay"):
            at_least(f"task.{key}", getattr(self, key), 0)
        for key in ("lr", "grad_clip"):
            if not getattr(self, key) > 0:
                raise UserError(f"task.{key}={getattr(self, key)}: must be above 0")
        for key in ("beta2", "dropout"):
            if not 0 <= getattr(self, key) < 1:
                raise UserError(f"task.{key}={getattr(self, key)}: must be at least 0 and below 1")
        choose("task.save_dtype", self.save_dtype, ("float32", "float16", "bfloat16"))
        if self.data is None:
            raise UserError("task=train: name a text file with task.data=FILE")
