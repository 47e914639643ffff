"""Beam search: every step keeps the num_beams likeliest texts of each prompt, until none can beat those that ended.

The rules are those of transformers' generate with early_stopping=False (`_beam_search` in
transformers/generation/utils.py, the same in 4.57 and 5), for each prompt on its own:

- Of all texts one token longer, the 2 num_beams best are looked at: at most num_beams of them end, so that
  num_beams go on. One that ends counts only if it is among the num_beams best.
- A text's score is the sum of its processed log-probabilities, in float32; once it has ended, that divided by
  its number of new tokens (the end-of-text token included) to the power of length_penalty.
- The search is over when num_beams texts have ended and the best that goes on, scored as if it ended here, is
  not above the worst of them; or after max_new_tokens, where the num_beams best end as they are.

Ties: between texts that go on, torch.topk decides, here as there; between texts that ended, the one that ended
earlier, then the one that was better before the length penalty, stands first (there, torch.topk again).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile

import torch
from torch import Tensor

from gpt2x.decoding.engine import decode_one_token, prefill
from gpt2x.decoding.generate import Completion
from gpt2x.model.gpt2 import GPT2

# The score of what only fills a place: finite, as in transformers, so that it stands above a token that is banned.
_PLACEHOLDER = -1e9


@dataclass
class _Beam:
    ids: list[int] = field(default_factory=list)
    """New tokens."""
    score: float = 0.0
    """Sum of the processed log-probabilities."""
    logprob: float = 0.0
    """Sum of the model's own."""
    row: int = 0
    """The row of the cache that holds all of it but the last token."""


class _Search:
    """The search from one prompt."""

    def __init__(self, prompt: list[int], num_beams: int) -> None:
        self.prompt = prompt
        # They start as the same text: only one may count, or each continuation would be there num_beams times.
        self.running = [_Beam(), *(_Beam(score=_PLACEHOLDER) for _ in range(num_beams - 1))]
        self.ended = [(_PLACEHOLDER, _Beam())] * num_beams  # with the length penalty, best first
        self.over = False
        self.shared = 0
        """How many tokens the beams before the last step have in common."""

    def advance(self, candidates: list[_Beam], eos_id: int | None, length_penalty: float, last: bool) -> None:
        """candidates are the 2 num_beams best continuations, best first; none go on after the last step."""
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
) -> list[list[Completion]]:
    """For each prompt its num_return (at most num_beams) best completions, best first.

    The prompts, of any lengths, share a batch of num_beams rows each, which a prompt leaves when its search
    is over. process(logprobs [B, V], texts, n_prompts) returns new log-probabilities (nats, not normalised again),
    given the tokens of each row and how many of them are its prompt's: transformers' logits processors get
    log-probabilities here, and logits in greedy search, so that a repetition penalty is not the same in both.
    Where it bans (-inf) so much that fewer than num_beams texts are left, empty completions fill the list.

    Raises ValueError where a prompt and its new tokens do not fit in n_positions.
    """
    searches = going = [_Search(prompt, num_beams) for prompt in prompts]
    rows = [prompt for prompt in prompts for _ in range(num_beams)]
    cache = model.new_cache(len(rows), max(map(len, prompts)) + max_new_tokens)
    logits = prefill(model, rows, cache)  # [B, V]
    for step in range(1, max_new_tokens + 1):
        for search, candidates in zip(going, _continue(going, logits.float(), process), strict=True):
            search.advance(candidates, eos_id, length_penalty, last=step == max_new_tokens)
        # Beams differ in their last tokens alone, more often than not: no need to move the rest.
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
    """For each search its 2 num_beams best continuations, best first; logits [B, V] of the beams' next tokens."""
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
