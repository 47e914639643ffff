"""The blocks of consecutive prompts that a run generates one after the other, and how shards divide them.

How a text is rounded depends on the other texts in its batch. Batches are therefore formed within a block, and blocks
do not depend on how many jobs share the work: a job that generates some of the blocks forms the batches of a job that
generates all of them, and their rows have the same bytes.
"""

from gpt2x.config.shard import ShardConfig

_SAMPLES = 128  # at least, so that texts of similar length meet in a batch
_BATCHES = 2  # at least, so that the next text takes the place of one that has ended


def prompts_per_block(batch_size: int | str, num_samples: int) -> int:
    """The number of consecutive prompts in a block, with all their samples. `batch_size` is that of the settings.

    It does not depend on the free memory, which differs between the machines of a cluster.
    """
    samples = _SAMPLES if isinstance(batch_size, str) else max(_SAMPLES, _BATCHES * batch_size)
    return -(-samples // num_samples)


def shard_of(n_prompts: int, block: int, shard: ShardConfig) -> slice:
    """The consecutive prompts that a shard generates: whole blocks of `block` prompts.

    The shards have equally many blocks, or one more. Where there are fewer blocks than shards, some have none.
    """
    n_blocks, index = -(-n_prompts // block), shard.index or 0
    return slice(*(-(-n_blocks * each // shard.count) * block for each in (index, index + 1)))
