"""The settings of task=validate."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from gpt2x.config.checks import check_texts, choose
from gpt2x.errors import UserError


class Stage(StrEnum):
    """The stages of a validation, in the order in which they run and are reported."""

    CONFIG = "config"
    TOKENIZER = "tokenizer"
    WEIGHTS = "weights"
    LAYERS = "layers"
    LOGITS = "logits"
    LOSS = "loss"
    GRADIENTS = "gradients"
    CACHE = "cache"
    PADDING = "padding"
    SAMPLING = "sampling"
    GENERATION = "generation"


@dataclass
class ValidateTask:
    """Is this GPT-2 the real GPT-2; if not, which module is wrong, and why?"""

    uses: ClassVar[tuple[str, ...]] = (
        *("model", "weights", "device", "dtype", "subject", "prompt", "prompt_file"),
        *("decode.greedy", "decode.max_new_tokens"),
    )
    neutral: ClassVar[tuple[str, ...]] = ()

    name: str = "validate"
    stages: list[str] = field(default_factory=list)
    gen_prompt: Annotated[Any, "text or list of text"] = None  # OmegaConf cannot type it
    save_reference: str | None = None
    reference: str | None = None
    suggest: bool = False

    def __post_init__(self) -> None:
        for stage in self.stages:
            choose("task.stages", stage, tuple(map(str, Stage)))
        if not self.stages:
            raise UserError(f"task.stages is empty: name some of {', '.join(Stage)}")
        if self.reference is not None and self.save_reference is not None:
            raise UserError("task.reference and task.save_reference contradict each other: give one of them")
        check_texts("task.gen_prompt", self.gen_prompt)
