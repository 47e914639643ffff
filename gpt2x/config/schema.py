"""The whole configuration: one dataclass per group, and the settings that belong to no group.

Types and invariants live in this package, values and their one-line comments in conf/*.yaml. Only this package and
gpt2x/cli know OmegaConf; tasks receive these dataclasses, converted once. Importing it never imports torch.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from omegaconf import MISSING

from gpt2x.config.checks import check_seed, check_texts, choose
from gpt2x.config.decode import DecodeConfig
from gpt2x.config.device import DeviceConfig
from gpt2x.config.model import ModelConfig
from gpt2x.config.subject import SubjectConfig
from gpt2x.config.weights import WeightsConfig
from gpt2x.errors import UserError


@dataclass
class Config:
    """All settings of one job."""

    task: Any = MISSING  # one of gpt2x.config.tasks.SCHEMAS
    subject: SubjectConfig = MISSING
    model: ModelConfig = MISSING
    weights: WeightsConfig = MISSING
    device: DeviceConfig = MISSING
    decode: DecodeConfig = MISSING
    dtype: str = "float32"
    seed: int = 0
    prompt: Annotated[Any, "text or list of text"] = None  # OmegaConf cannot type it
    prompt_file: str | None = None
    prompts_file: str | None = None
    batch_size: Annotated[Any, "auto or int"] = "auto"
    notes: str | None = None

    def __post_init__(self) -> None:
        choose("dtype", self.dtype, ("float32", "float64", "bfloat16", "float16", "int8"))
        check_seed("seed", self.seed)
        if self.batch_size != "auto" and (type(self.batch_size) is not int or self.batch_size < 1):
            raise UserError(f"batch_size={self.batch_size}: must be auto, or a whole number of at least 1")
        check_texts("prompt", self.prompt)
