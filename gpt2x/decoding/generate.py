"""The decoding loop: a batch of texts of any lengths. A text that ends leaves it, and the next one takes its place."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from gpt2x.decoding.engine import decode_one_token, pack, prefill, prepare, verify
from gpt2x.decoding.sampler import Pick, Sampler
from gpt2x.decoding.search.lookup import Lookup
from gpt2x.decoding.stop import StopStrings
from gpt2x.model.gpt2 import GPT2

# Packing the weights costs about as much time as 30 passes over 4 or more rows save (124M, two AVX-512 cores).
_PACK_ROWS, _PACK_PASSES = 4, 32
# Tokens of all rows together in a pass that verifies drafts: more of them take longer than the drafts save.
_MOST_VERIFIED = 32


FinishReason = Literal["", "length", "eos", "stop"]
"""Why a completion ended: max_new_tokens, the end-of-text token or a stop string; empty while it goes on."""


@dataclass(frozen=True)
class Request:
    """A text to continue."""

    ids: Sequence[int]
    prompt: str = ""
    """With `sample`, and the seed of the sampler, this determines the request's random numbers."""
    sample: int = 0


@dataclass
class Completion:
    """What the model adds to a prompt."""

    ids: list[int] = field(default_factory=list)
    """New tokens, including the end-of-text token and the tokens of a stop string."""
    finish_reason: FinishReason = ""
    logprob: float = 0.0
    """Sum over the new tokens, in nats, under the unfiltered model."""
    text_length: int | None = None
    """Characters before the stop string; None if no stop string ended the text."""
    picks: list[Pick] = field(default_factory=list)
    """How each token was chosen; empty without decode.logprobs."""


class _Row:
    """A text that grows: one row of the batch."""

    def __init__(self, index: int, request: Request, sampler: Sampler, stop: StopStrings | None) -> None:
        self.index, self.sampler, self.stop = index, sampler, stop
        self.ids, self.n_prompt = list(request.ids), len(request.ids)
        self.uniforms = sampler.uniforms(request.prompt, request.sample)
        self.drawn: list[Tensor] = []
        self.completion = Completion()
        self.lookup = Lookup() if sampler.decode.lookup else None

    def draft(self, room: int) -> list[int]:
        """Up to `room` tokens that may come next; none without decode.lookup."""
        left = self.sampler.decode.max_new_tokens - len(self.completion.ids) - 1
        return self.lookup.draft(self.ids, min(room, left)) if self.lookup else []

    def uniform(self, t: int) -> Tensor:
        """The random numbers for new token t."""
        while len(self.drawn) <= t:
            self.drawn.append(next(self.uniforms))
        return self.drawn[t]

    def take(self, pick: Pick) -> None:
        """Adds a token, and sets finish_reason if the text ends with it."""
        new = self.completion
        self.ids.append(pick.token)
        new.ids.append(pick.token)
        new.logprob += pick.logprob
        if pick.likeliest is not None:
            new.picks.append(pick)
        if pick.token == self.sampler.eos_id:
            new.finish_reason = "eos"
        elif self.stop and (end := self.stop.find(new.ids)) is not None:
            new.finish_reason, new.text_length = "stop", end
        elif len(new.ids) == self.sampler.decode.max_new_tokens:
            new.finish_reason = "length"


class _Batch:
    """The texts in flight: row i of `rows` is row i of the cache."""

    def __init__(self, model: GPT2, sampler: Sampler, size: int, capacity: int) -> None:
        self.model, self.sampler = model, sampler
        self.n_positions, self.capacity = model.config.n_positions, capacity
        self.cache = model.new_cache(size, capacity)
        self.rows: list[_Row] = []

    def remove(self, row: _Row) -> None:
        """Takes a row out; as in the cache, the last row moves into its place."""
        i = self.rows.index(row)
        self.cache.remove(i)
        self.rows[i] = self.rows[-1]
        self.rows.pop()

    def remove_full(self) -> list[_Row]:
        """Takes out the rows that fill the context and returns them.

        Their window must slide: every token gets another position, so their cached keys and values are of no use.
        """
        lengths = self.cache.lengths
        full = [row for row, length in zip(self.rows, lengths, strict=True) if length == self.n_positions]
        for row in full:
            self.remove(row)
        return full

    def add(self, rows: list[_Row]) -> list[tuple[_Row, list[Pick]]]:
        """Prefills new rows and returns the next token of each."""
        logits = prefill(self.model, [row.ids[-self.n_positions :] for row in rows], self.cache)  # [B, V]
        self.rows += rows
        return self._pick(rows, logits[:, None], [[] for _ in rows])

    def step(self) -> list[tuple[_Row, list[Pick]]]:
        """The next token of each row, and the drafted tokens that it confirms."""
        lengths = self.cache.lengths
        room = min(self.capacity - max(lengths), _MOST_VERIFIED // len(lengths)) - 1
        drafts = [row.draft(room) for row in self.rows]
        if any(drafts):
            tokens = [[row.ids[-1], *draft] for row, draft in zip(self.rows, drafts, strict=True)]
            logits = verify(self.model, tokens, self.cache)  # [B, T, V]
        else:
            logits = decode_one_token(self.model, [row.ids[-1] for row in self.rows], self.cache)[:, None]
        picked = self._pick(self.rows, logits, drafts)
        self.cache.truncate([length + len(picks) for length, (_, picks) in zip(lengths, picked, strict=True)])
        return picked

    def _pick(self, rows: list[_Row], logits: Tensor, drafts: list[list[int]]) -> list[tuple[_Row, list[Pick]]]:
        """Logits [B, T, V] after each row's last token and its drafted tokens -> picks up to the first wrong draft."""
        B, T, _ = logits.shape
        spots = [(b, t) for b, draft in enumerate(drafts) for t in range(len(draft) + 1)]
        flat = logits.flatten(0, 1)  # [B * T, V]
        picks = iter(
            self.sampler.pick(
                flat if len(spots) == B * T else flat[[b * T + t for b, t in spots]],
                [rows[b].ids + drafts[b][:t] for b, t in spots],
                [rows[b].n_prompt for b, _ in spots],
                (rows[b].uniform(len(rows[b].completion.ids) + t) for b, t in spots),
            )
        )
        picked = []
        for row, draft in zip(rows, drafts, strict=True):
            own = [next(picks) for _ in range(len(draft) + 1)]
            right = next((t for t, token in enumerate(draft) if own[t].token != token), len(draft))
            if row.lookup:
                row.lookup.learn(len(draft), right)
            picked.append((row, own[: right + 1]))
        return picked


def generate(
    model: GPT2,
    requests: list[Request],
    sampler: Sampler,
    stop: StopStrings | None = None,
    batch_size: int = 8,
    on_token: Callable[[int, Pick], None] = lambda request, pick: None,
    deterministic: bool = False,
) -> Iterator[tuple[int, Completion]]:
    """Continues the requests in their order, up to batch_size at once; yields (request index, completion) as they end.

    on_token is called with the request index and the choice, for each new token. Where a text is longer than
    n_positions, its last n_positions tokens are the context: the window slides, and is prefilled again for each token.
    """
    decode, size = sampler.decode, min(batch_size, len(requests))
    steps = decode.max_new_tokens * len(requests) // size
    longest = max(len(request.ids) for request in requests) + decode.max_new_tokens
    batch = _Batch(model, sampler, size, min(model.config.n_positions, longest))
    is_compiled = prepare(model, batch.cache, steps, deterministic)
    uses_several = (size >= _PACK_ROWS and not is_compiled) or (decode.lookup and not deterministic)
    if uses_several and steps >= _PACK_PASSES:
        pack(model)
    waiting = deque(enumerate(requests))
    while waiting or batch.rows:
        new = batch.remove_full()
        free = size - len(batch.rows) - len(new)
        new += [_Row(*waiting.popleft(), sampler, stop) for _ in range(min(free, len(waiting)))]
        for row, picks in batch.add(new) if new else batch.step():
            for pick in picks:
                row.take(pick)
                on_token(row.index, pick)
                if row.completion.finish_reason:
                    batch.remove(row)
                    yield row.index, row.completion
                    break
