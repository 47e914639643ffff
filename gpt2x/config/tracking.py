"""The group `tracking`: where runs are logged besides their folders."""

from dataclasses import dataclass

from gpt2x.config.checks import choose
from gpt2x.errors import UserError


@dataclass
class TrackingConfig:
    tracker: str = "none"
    uri: str | None = None
    experiment: str | None = None

    def __post_init__(self) -> None:
        choose("tracking.tracker", self.tracker, ("none", "mlflow"))
        for key in ("uri", "experiment"):
            if self.tracker == "none" and getattr(self, key) is not None:
                raise UserError(f"tracking.{key}={getattr(self, key)}: add tracking=mlflow")
            if self.tracker == "mlflow" and not getattr(self, key):
                raise UserError(f"tracking.{key} is empty: give it a value, or leave it out")
