"""Blocks of prompts, and the shards that divide them."""

import pytest

from gpt2x.config.shard import ShardConfig
from gpt2x.decoding.blocks import prompts_per_block, shard_of


@pytest.mark.parametrize("n", [1, 5, 127, 128, 129, 1000, 12_345, 1_000_000])
@pytest.mark.parametrize("count", [1, 2, 3, 8, 64, 1000])
@pytest.mark.parametrize("block", [1, 43, 128])
def test_shards_are_whole_blocks_that_follow_each_other(n: int, count: int, block: int) -> None:
    shards = [range(n)[shard_of(n, block, ShardConfig(index, count))] for index in range(count)]
    assert [place for shard in shards for place in shard] == list(range(n))
    assert {shard.start % block for shard in shards if shard} == {0}
    n_blocks = [-(-len(shard) // block) for shard in shards]
    assert max(n_blocks) - min(n_blocks) <= 1


def test_without_shards_it_is_all_prompts() -> None:
    assert range(300)[shard_of(300, 128, ShardConfig())] == range(300)


@pytest.mark.parametrize(
    ("batch_size", "num_samples", "prompts"),
    [("auto", 1, 128), ("auto", 3, 43), ("auto", 1000, 1), (1, 1, 128), (64, 1, 128), (256, 1, 512), (256, 4, 128)],
)
def test_a_block_has_two_batches_at_least(batch_size: int | str, num_samples: int, prompts: int) -> None:
    assert prompts_per_block(batch_size, num_samples) == prompts
