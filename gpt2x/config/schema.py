"""The whole configuration: one dataclass per group, and the settings that belong to no group.

Types and invariants live in this package, values and their one-line comments in conf/*.yaml. Only this package and
gpt2x/cli know OmegaConf; tasks receive these dataclasses, converted once. Importing it never imports torch.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from omegaconf import MISSING

from gpt2x.config.checks import check_batch_size, check_dtype, check_seed, check_text, check_texts
from gpt2x.config.decode import DecodeConfig
from gpt2x.config.device import DeviceConfig
from gpt2x.config.model import ModelConfig
from gpt2x.config.shard import ShardConfig
from gpt2x.config.subject import SubjectConfig
from gpt2x.config.sweep import SweepConfig
from gpt2x.config.tasks import reads
from gpt2x.config.tracking import TrackingConfig
from gpt2x.config.weights import WeightsConfig
from gpt2x.errors import UserError


@dataclass
class Config(SweepConfig):
    """All settings of one job."""

    task: Any = MISSING  # one of gpt2x.config.tasks.SCHEMAS
    subject: SubjectConfig = MISSING
    model: ModelConfig = MISSING
    weights: WeightsConfig = MISSING
    device: DeviceConfig = MISSING
    decode: DecodeConfig = MISSING
    tracking: TrackingConfig = MISSING
    shard: ShardConfig = MISSING
    dtype: str = "float32"
    seed: int = 0
    prompt: Annotated[Any, "text or list of text"] = None  # OmegaConf cannot type it
    prompt_file: str | None = None
    prompts_file: str | None = None
    prompt_id: Annotated[Any, "text or null"] = None  # as `prompt`: OmegaConf would take some texts for its own
    batch_size: Annotated[Any, "auto or int"] = "auto"
    deterministic: bool = False
    notes: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_dtype("dtype", self.dtype)
        check_seed("seed", self.seed)
        check_batch_size("batch_size", self.batch_size)
        check_texts("prompt", self.prompt)
        is_local = self.weights.source != "auto" and reads(type(self.task), "weights.source")
        if self.weights.revision is not None and is_local:
            raise UserError("weights.revision is only for the hub: add weights=auto")
        if self.prompt_id is not None:
            check_text("prompt_id", self.prompt_id)
            self._need_prompts_file(f"prompt_id={self.prompt_id}: names one prompt of a prompts_file")
        if self.shard.count > 1:
            self._need_prompts_file(f"shard.count={self.shard.count}: divides a prompts_file")
            if self.prompt_id is not None:
                raise UserError(f"shard.count={self.shard.count} and prompt_id contradict each other: give one of them")

    def _need_prompts_file(self, why: str) -> None:
        if self.prompts_file is None:
            raise UserError(f"{why}; add prompts_file=FILE")
