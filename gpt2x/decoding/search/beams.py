"""Beam search: each step keeps the num_beams likeliest texts of each prompt, until none can beat those that ended.

The rules are those of transformers' generate with early_stopping=False (`_beam_search` in
transformers/generation/utils.py, the same in 4.57 and 5), applied to each prompt alone:

- The candidates are the 2 num_beams best of all texts that are one token longer. At most num_beams of them end,
  so at least num_beams can go on. A candidate that ends counts only if it is among the num_beams best.
- A text's score is the sum of its processed log-probabilities, in float32; when it has ended, this sum is
  divided by its number of new tokens (including the end-of-text token) to the power of length_penalty.
- The search is over when num_beams texts have ended and the best text that goes on, scored as if it ended
  here, is not better than the worst of them; or after max_new_tokens, where the num_beams best texts end.

Ties: between texts that go on, torch.topk decides, as in transformers. Between texts that ended, the one that ended
earlier comes first, then the one that was better before the length penalty; in transformers, torch.topk decides again.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile

import torch
from torch import Tensor

from gpt2x.decoding.engine import decode_one_token, prefill, prepare
from gpt2x.decoding.generate import Completion
from gpt2x.model.gpt2 import GPT2

# The score of a beam that only fills a place: finite, as in transformers, so that it is better than a banned token.
_PLACEHOLDER = -1e9


@dataclass
class _Beam:
    """A text of a search."""

    ids: list[int] = field(default_factory=list)
    """New tokens."""
    score: float = 0.0
    """Sum of the processed log-probabilities."""
    logprob: float = 0.0
    """Sum of the unprocessed log-probabilities."""
    row: int = 0
    """The row of the cache that holds this text without its last token."""


class _Search:
    """The search from one prompt."""

    def __init__(self, prompt: list[int], num_beams: int) -> None:
        self.prompt = prompt
        # All beams start as the same text. Only one may count, or each continuation would appear num_beams times.
        self.running = [_Beam(), *(_Beam(score=_PLACEHOLDER) for _ in range(num_beams - 1))]
        self.ended = [(_PLACEHOLDER, _Beam())] * num_beams  # (score with the length penalty, beam), best first
        self.over = False
        self.shared = 0
        """How many leading tokens the beams before the last step have in common."""

    def advance(self, candidates: list[_Beam], eos_id: int | None, length_penalty: float, last: bool) -> None:
        """Takes one step: candidates are the 2 num_beams best continuations, best first; all end at the last step."""
        n = len(self.running)
        penalty = len(candidates[0].ids) ** length_penalty
        ended = [(beam.score / penalty, beam) for beam in candidates[:n] if last or beam.ids[-1] == eos_id]
        self.ended = sorted(self.ended + ended, key=lambda scored: scored[0], reverse=True)[:n]
        columns = zip(*(beam.ids for beam in self.running), strict=True)
        self.shared = len(self.prompt) + sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
        self.running = [beam for beam in candidates if beam.ids[-1] != eos_id][:n]
        self.over = last or not self.running[0].score / penalty > self.ended[-1][0]


@torch.inference_mode()
def beam_search(
    model: GPT2,
    prompts: list[list[int]],
    num_beams: int,
    num_return: int,
    length_penalty: float,
    max_new_tokens: int,
    eos_id: int | None,
    process: Callable[[Tensor, list[list[int]], list[int]], Tensor],
    deterministic: bool = False,
) -> list[list[Completion]]:
    """Returns, per prompt, its num_return (at most num_beams) best completions, best first.

    The prompts, of any lengths, share a batch with num_beams rows per prompt. A prompt leaves the batch when its
    search is over. process(logprobs [B, V], texts, n_prompts) gets the tokens of each row and how many of them are
    the prompt's, and returns new log-probabilities (in nats, not normalised again). As in transformers, the
    processors get log-probabilities here but logits in greedy search, so a repetition penalty differs between the
    two. If they ban (-inf) so many tokens that fewer than num_beams texts are left, empty completions fill the list.

    Raises ValueError if a prompt and its new tokens do not fit in n_positions.
    """
    searches = going = [_Search(prompt, num_beams) for prompt in prompts]
    rows = [prompt for prompt in prompts for _ in range(num_beams)]
    cache = model.new_cache(len(rows), max(map(len, prompts)) + max_new_tokens)
    prepare(model, cache, max_new_tokens, deterministic)
    logits = prefill(model, rows, cache)  # [B, V]
    for step in range(1, max_new_tokens + 1):
        for search, candidates in zip(going, _continue(going, logits.float(), process), strict=True):
            search.advance(candidates, eos_id, length_penalty, last=step == max_new_tokens)
        # Usually the beams differ only in their last tokens: the cache of the tokens before those need not be moved.
        shared = 0 if any(search.over for search in going) else min(search.shared for search in going)
        going = [search for search in going if not search.over]
        if not going:
            break
        beams = [beam for search in going for beam in search.running]
        cache.reorder(torch.tensor([beam.row for beam in beams], device=logits.device), shared)
        logits = decode_one_token(model, [beam.ids[-1] for beam in beams], cache)
    return [[_completion(beam, eos_id) for _, beam in search.ended[:num_return]] for search in searches]


def _continue(
    searches: list[_Search], logits: Tensor, process: Callable[[Tensor, list[list[int]], list[int]], Tensor]
) -> list[list[_Beam]]:
    """Per search, its 2 num_beams best continuations, best first; logits [B, V] are those of the beams' next tokens."""
    beams = [beam for search in searches for beam in search.running]
    texts = [search.prompt + beam.ids for search in searches for beam in search.running]
    n_prompts = [len(search.prompt) for search in searches for _ in search.running]
    logprobs = logits.log_softmax(-1)  # [B, V]
    so_far = torch.tensor([beam.score for beam in beams], dtype=torch.float32, device=logits.device)
    scores = process(logprobs, texts, n_prompts) + so_far[:, None]
    n, V = len(beams) // len(searches), logits.shape[-1]
    best, index = scores.view(len(searches), n * V).topk(2 * n)  # [searches, 2n]
    rows = index // V + n * torch.arange(len(searches), device=index.device)[:, None]
    tokens = index % V
    chosen = (tokens, best, logprobs[rows, tokens], rows)
    return [
        [
            _Beam([*beams[row].ids, token], score, beams[row].logprob + logprob, row)
            for token, score, logprob, row in zip(*search, strict=True)
        ]
        for search in zip(*(part.tolist() for part in chosen), strict=True)
    ]


def _completion(beam: _Beam, eos_id: int | None) -> Completion:
    return Completion(beam.ids, "eos" if beam.ids[-1:] == [eos_id] else "length", beam.logprob)
