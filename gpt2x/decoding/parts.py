"""The parts in which the samples of a run are generated, and the store that keeps the rows of finished samples.

The samples of a block are generated from the shortest prompt to the longest, in parts of a few batches. How a text is
rounded depends on the other texts in its batch. So a part that a kill left unfinished is started again from its
beginning: each batch then holds the same texts as in a run that was not killed, and the tables end in the same bytes.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from gpt2x.config.decode import DecodeConfig
from gpt2x.decoding.batches import automatic_batch_size
from gpt2x.decoding.blocks import prompts_per_block
from gpt2x.decoding.rows import GenerationRow, TokenRow
from gpt2x.decoding.samples import Key, Sample, key_of
from gpt2x.model.gpt2 import GPT2
from gpt2x.runs.journal import Rows

_BATCHES_PER_PART = 2


@dataclass(frozen=True)
class Plan:
    """How the work is divided. A continued run needs it to form the same batches again."""

    asked: int | str
    """The batch size of the settings: an int, or 'auto'."""
    batch_size: int
    """Samples (or beams) that are decoded together; halved where memory is short."""
    part: int
    """Samples per part."""

    def __post_init__(self) -> None:
        for size in (self.batch_size, self.part):
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"{size} is not a number of samples")


class Store(Protocol):
    """Keeps the rows of finished samples, and the plan: in memory, or in a run folder."""

    facts: Plan | None
    """None before the first call of `rewrite`."""
    rows: Rows
    """GenerationRow -> the rows so far, and, with decode.logprobs, TokenRow -> the rows so far."""

    def append(self, rows: Rows, /) -> None:
        """Adds the rows of one more sample."""

    def rewrite(self, rows: Rows, facts: Plan, /) -> None:
        """Replaces all rows and the plan."""


class MemoryStore:
    """A store that lives as long as the process."""

    def __init__(self) -> None:
        self.facts: Plan | None = None
        self.rows: Rows = {TokenRow: [], GenerationRow: []}

    def append(self, rows: Rows) -> None:
        for row_type, new in rows.items():
            self.rows[row_type] += new

    def rewrite(self, rows: Rows, facts: Plan) -> None:
        self.rows, self.facts = rows, facts


def plan_parts(
    model: GPT2, samples: list[Sample], decode: DecodeConfig, asked: int | str, store: Store
) -> tuple[Plan, list[list[Sample]]]:
    """The plan, and the parts that are left to generate; `asked` is a batch size or 'auto'.

    Drops the rows of unfinished parts from the store.
    """
    longest = max((len(sample.ids) for sample in samples), default=0) + decode.max_new_tokens
    earlier = store.facts
    size = earlier.batch_size if earlier is not None and earlier.asked == asked else asked
    if isinstance(size, str):
        size = automatic_batch_size(model, min(longest, model.config.n_positions))
    length = earlier.part if earlier is not None else _BATCHES_PER_PART * size
    length += -length % decode.num_samples  # the samples of one prompt come from the same beams
    complete = _complete_samples(store.rows, decode.logprobs, model.config.vocab_size)
    left, finished = [], set()
    for part in _parts(samples, prompts_per_block(asked, decode.num_samples) * decode.num_samples, length):
        keys = {sample.key for sample in part}
        if keys <= complete:
            finished |= keys
        else:
            left.append(part)
    plan = Plan(asked, size, length)
    rows = {row_type: [row for row in rows if key_of(row) in finished] for row_type, rows in store.rows.items()}
    store.rewrite(rows, plan)
    return plan, left


def _parts(samples: list[Sample], block: int, length: int) -> Iterator[list[Sample]]:
    """Parts of at most `length` samples, from one block of `block` samples after the other."""
    for start in range(0, len(samples), block):
        order = sorted(samples[start : start + block], key=lambda sample: len(sample.ids))
        yield from (order[start : start + length] for start in range(0, len(order), length))


def _complete_samples(rows: Rows, logprobs: int | None, vocab_size: int) -> set[Key]:
    """Keys of the samples with all their rows, once: if a machine goes down, one table may lose more than another."""
    times = Counter(key_of(row) for row in rows[GenerationRow])
    n_new = {key_of(row): row.n_new_tokens for row in rows[GenerationRow] if times[key_of(row)] == 1}
    if logprobs is None:
        return set(n_new)
    steps: dict[Key, dict[int, list[TokenRow]]] = {key: {} for key in n_new}
    for row in rows[TokenRow]:
        steps.setdefault(key_of(row), {}).setdefault(row.step, []).append(row)
    n_ranks = min(logprobs, vocab_size)
    return {
        key
        for key, n in n_new.items()
        if steps[key].keys() == set(range(n)) and all(_is_whole(step, n_ranks) for step in steps[key].values())
    }


def _is_whole(step: list[TokenRow], n_ranks: int) -> bool:
    """Whether the rows of a step are those of its likeliest tokens, and of one that was chosen, each of them once."""
    chosen = [row.rank for row in step if row.chosen]
    return len(chosen) == 1 and sorted(row.rank for row in step) == sorted({*range(1, n_ranks + 1), *chosen})
