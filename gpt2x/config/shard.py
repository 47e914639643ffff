"""The settings `shard.index` and `shard.count`: which part of a prompts_file a job generates."""

from dataclasses import dataclass

from gpt2x.config.checks import at_least
from gpt2x.errors import UserError


@dataclass
class ShardConfig:
    index: int | None = None
    count: int = 1

    def __post_init__(self) -> None:
        at_least("shard.count", self.count, 1)
        if self.index is None and self.count > 1:
            raise UserError(f"shard.count={self.count}: also give shard.index, from 0 to {self.count - 1}")
        if self.index is not None and not 0 <= self.index < self.count:
            raise UserError(
                f"shard.index={self.index}: must be from 0 to {self.count - 1}, that is below shard.count={self.count}"
            )
