"""What was measured of an engine: times, tokens and memory."""

from dataclasses import dataclass, field

from gpt2x.benchmark.engines import Variant


@dataclass(frozen=True)
class Turn:
    """One round of an engine with a batch of prompts."""

    first_seconds: float
    """The time to generate one token per prompt."""
    seconds: float
    """The time to generate all new tokens."""
    tokens: list[list[int]]
    """The new tokens of each prompt."""

    @property
    def step_seconds(self) -> float:
        """The time per token after the first; a step makes one token for every prompt."""
        return (self.seconds - self.first_seconds) / (len(self.tokens[0]) - 1)


@dataclass
class Measured:
    """One engine in one dtype."""

    variant: Variant
    load_seconds: float
    version: str
    """The version of its package."""
    turns: dict[int, list[Turn]] = field(default_factory=dict)
    """Batch size -> one turn per round."""
    peak_rss: int = 0
    """Largest resident memory of its process, in bytes; mapped files count as far as they were read."""
