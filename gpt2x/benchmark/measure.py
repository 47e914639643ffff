"""The rounds: in each, every engine has its turn, so that other load on the machine affects all of them alike."""

import time
from collections.abc import Iterable

import torch

from gpt2x.benchmark.measured import Turn
from gpt2x.benchmark.participants import Participants, Progress

# Seconds before a turn: threads of some OpenMP runtimes keep a core busy for 0.2 s after their work (KMP_BLOCKTIME).
_SETTLE = 0.25


def draw_prompts(rows: int, n_tokens: int, vocab_size: int, seed: int) -> list[list[int]]:
    """Random token ids, [rows][n_tokens]. No two rows begin with the same id if vocab_size allows it."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(vocab_size, (rows, n_tokens), generator=generator)
    ids[:, 0] = torch.randperm(vocab_size, generator=generator)[torch.arange(rows) % vocab_size]
    prompts: list[list[int]] = ids.tolist()
    return prompts


def measure(
    participants: Participants,
    prompts: list[list[int]],
    batch_sizes: Iterable[int],
    new_tokens: int,
    rounds: int,
    progress: Progress,
) -> None:
    """Adds the turns of every participant, after one round that warms up, and its peak memory.

    A batch is as many of the prompts, from the first on. An engine that fails is left out.
    """
    batches = list(dict.fromkeys(batch_sizes))
    done, total = 0, len(batches) * (1 + rounds) * len(participants.running)
    for batch in batches:
        for number in range(-1, rounds):
            for each in list(participants.running):
                progress(f"batch {batch}, {each.worker.variant}", done, total)
                time.sleep(_SETTLE)
                with participants.guarded(each.worker):
                    tokens, seconds = each.worker.generate(prompts[:batch], new_tokens)
                    first_seconds = each.worker.first_seconds(prompts[:batch])
                    if number >= 0:
                        each.measured.turns.setdefault(batch, []).append(Turn(first_seconds, seconds, tokens))
                done += 1
    for each in list(participants.running):
        with participants.guarded(each.worker):
            each.measured.peak_rss = each.worker.peak_rss()
