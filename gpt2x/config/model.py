"""The group `model`: an architecture, and where its weights are published."""

from dataclasses import dataclass

from omegaconf import MISSING

from gpt2x.config.checks import at_least, choose
from gpt2x.errors import UserError


@dataclass(unsafe_hash=True)  # the key under which a loaded model is kept
class ModelConfig:
    """The architecture. A setting that is null is taken from the checkpoint."""

    name: str = MISSING
    vocab_size: int | None = None
    n_positions: int | None = None
    n_embd: int | None = None
    n_layer: int | None = None
    n_head: int | None = None
    tokenizer: str | None = None
    hub: str | None = None

    def __post_init__(self) -> None:
        for key in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head"):
            at_least(f"model.{key}", getattr(self, key), 1)
        if self.n_embd and self.n_head and self.n_embd % self.n_head:
            raise UserError(f"model.n_embd={self.n_embd}: not a multiple of model.n_head={self.n_head}")
        if self.tokenizer is not None:
            choose("model.tokenizer", self.tokenizer, ("gpt2", "own"))
