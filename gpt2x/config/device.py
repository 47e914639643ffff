"""The group `device`."""

from dataclasses import dataclass

from omegaconf import MISSING

from gpt2x.config.checks import choose


@dataclass
class DeviceConfig:
    name: str = MISSING

    def __post_init__(self) -> None:
        choose("device", self.name, ("auto", "cpu", "cuda", "mps"))
