"""Choosing the next token. Every sample has its own random numbers, so nothing else can change it."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2x.config.decode import DecodeConfig
from gpt2x.decoding.filters.processors import process_logits
from gpt2x.decoding.filters.warpers import filter_logits
from gpt2x.errors import UserError

_HALVINGS = 32  # random numbers a token: for a vocabulary of up to as many bits


@dataclass(frozen=True)
class Pick:
    """A chosen token, and with decode.logprobs what it was chosen from."""

    token: int
    logprob: float
    """Nats, under the unfiltered model, as are all here."""
    rank: int = 0
    """1 for the likeliest of all tokens."""
    kept: int = 0
    """Tokens that could have been drawn; 1 if greedy."""
    likeliest: list[tuple[int, float]] | None = None
    """decode.logprobs tokens and their log-probabilities."""

    def ranked(self) -> list[tuple[int, tuple[int, float]]]:
        """The likeliest tokens and, if it is none of them, the chosen one, each with its rank."""
        best = list(enumerate(self.likeliest or [], 1))
        chosen = any(token == self.token for _, (token, _) in best)
        return best if chosen else [*best, (self.rank, (self.token, self.logprob))]


class Sampler:
    """Picks tokens under the settings of one run."""

    def __init__(self, decode: DecodeConfig, seed: int, eos_id: int | None) -> None:
        self.decode, self.seed, self.eos_id = decode, seed, eos_id

    def uniforms(self, prompt: str, sample: int) -> Iterator[Tensor]:
        """The random numbers of a sample, in [0, 1): [_HALVINGS] for each of its tokens, without end."""
        digest = hashlib.sha256(f"{self.seed}/{sample}/{prompt}".encode("utf-8", "surrogatepass")).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)  # torch's seeds are signed
        while True:
            yield torch.rand(_HALVINGS, generator=generator, dtype=torch.float64)

    def pick(
        self, logits: Tensor, texts: list[list[int]], n_prompts: list[int], uniforms: Iterable[Tensor]
    ) -> list[Pick]:
        """logits [N, V], and of each row the ids so far, how many of them are the prompt's, and its random numbers.

        Greedy picks take none of the numbers, so a generator need not draw them.
        """
        logits = logits.float()
        processed = process_logits(logits, texts, n_prompts, self.decode, self.eos_id)
        if self.decode.greedy:
            kept = [1] * len(texts)
            tokens = processed.argmax(-1)  # [N]
        else:
            filtered = filter_logits(processed.cpu().double(), self.decode)
            kept = (filtered > -torch.inf).sum(-1).tolist()
            if 0 in kept:
                raise UserError("no token is left to draw: no_repeat_ngram_size and min_new_tokens forbid all of them")
            tokens = draw(filtered, torch.stack(list(uniforms))).to(logits.device)  # [N]
        logprobs = logits.log_softmax(-1)  # [N, V]
        chosen = logprobs.gather(-1, tokens[:, None])  # [N, 1]
        fields = [tokens.tolist(), chosen[:, 0].tolist()]  # of Pick, each for all rows
        if self.decode.logprobs is not None:
            ranks = (logprobs > chosen).sum(-1) + 1
            best = logprobs.topk(min(self.decode.logprobs, logprobs.shape[-1]))
            pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            fields += [ranks.tolist(), kept, [list(zip(*pair, strict=True)) for pair in pairs]]
        return [Pick(*row) for row in zip(*fields, strict=True)]


def draw(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Token ids [N] drawn from filtered logits [N, V] by uniform numbers [N, _HALVINGS].

    The vocabulary is halved until one token is left, and each time a number of its own says which half stays.
    So only that many comparisons can be upset by how the logits are rounded (in another batch size, say), where
    a search in the cumulative distribution has one for each token.
    """
    V = logits.shape[-1]
    halvings = (V - 1).bit_length()
    masses = [F.pad(logits.softmax(-1), (0, 2**halvings - V))]  # of single tokens, then of spans of 2, 4, ...
    for _ in range(halvings):
        masses.append(masses[-1][:, 0::2] + masses[-1][:, 1::2])
    both, *halves = reversed(masses)
    spans = torch.zeros(len(logits), 1, dtype=torch.long)
    for mass, uniform in zip(halves, uniforms.t(), strict=False):
        left = mass.gather(-1, 2 * spans)
        spans = 2 * spans + (uniform[:, None] * both.gather(-1, spans) >= left)
        both = mass
    return spans[:, 0]
