"""The group `weights`: where the weights come from."""

from dataclasses import dataclass

from omegaconf import MISSING

from gpt2x.config.checks import check_seed, choose
from gpt2x.errors import UserError


@dataclass
class WeightsConfig:
    source: str = MISSING
    path: str | None = None
    revision: str | None = None
    seed: int = 0
    layout: str | None = None

    def __post_init__(self) -> None:
        choose("weights.source", self.source, ("local", "auto", "random"))
        if self.path is not None and self.source == "random":
            raise UserError("weights.path and weights=random contradict each other: give one of them")
        if self.revision is not None and self.source != "auto":
            raise UserError("weights.revision is only for the hub: add weights=auto")
        check_seed("weights.seed", self.seed)
        if self.layout is not None:
            choose("weights.layout", self.layout, ("conv1d", "linear"))
