"""The whole configuration: one dataclass per group, and the settings that belong to no group.

Types and invariants live in this package, values and their one-line comments in conf/*.yaml. Only this package and
gpt2x/cli know OmegaConf; tasks receive these dataclasses, converted once. Importing it never imports torch.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from omegaconf import MISSING

from gpt2x.config.checks import check_batch_size, check_dtype, check_seed, check_texts
from gpt2x.config.decode import DecodeConfig
from gpt2x.config.device import DeviceConfig
from gpt2x.config.model import ModelConfig
from gpt2x.config.subject import SubjectConfig
from gpt2x.config.sweep import SweepConfig
from gpt2x.config.weights import WeightsConfig


@dataclass
class Config(SweepConfig):
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
        super().__post_init__()
        check_dtype("dtype", self.dtype)
        check_seed("seed", self.seed)
        check_batch_size("batch_size", self.batch_size)
        check_texts("prompt", self.prompt)
