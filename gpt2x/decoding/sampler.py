"""Choosing the next token. Each sample has its own random numbers, so no other sample can change it."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2x.config.decode import DecodeConfig
from gpt2x.decoding.filters.processors import nothing_left, process_logits
from gpt2x.decoding.filters.warpers import filter_logits

_HALVINGS = 32  # random numbers per token, one per halving of the vocabulary: enough for 2**32 tokens


@dataclass(frozen=True)
class Pick:
    """A chosen token. The fields after `logprob` are filled in with decode.logprobs only."""

    token: int
    logprob: float
    """In nats, under the unfiltered model, as all log-probabilities here."""
    rank: int = 0
    """Among all tokens; 1 for the likeliest."""
    kept: int = 0
    """Number of tokens that could have been drawn; 1 if greedy."""
    likeliest: list[tuple[int, float]] | None = None
    """The decode.logprobs likeliest tokens, each with its log-probability."""

    def ranked(self) -> list[tuple[int, tuple[int, float]]]:
        """(rank, (token, log-probability)) of the likeliest tokens and, if it is not among them, of the chosen one."""
        best = list(enumerate(self.likeliest or [], 1))
        among_them = any(token == self.token for _, (token, _) in best)
        return best if among_them else [*best, (self.rank, (self.token, self.logprob))]


class Sampler:
    """Picks tokens under the decode settings and the seed of one run."""

    def __init__(self, decode: DecodeConfig, seed: int, eos_id: int | None) -> None:
        self.decode, self.seed, self.eos_id = decode, seed, eos_id

    def uniforms(self, prompt: str, sample: int) -> Iterator[Tensor]:
        """Yields the random numbers of a sample, without end: [_HALVINGS] in [0, 1) for each of its tokens."""
        digest = hashlib.sha256(f"{self.seed}/{sample}/{prompt}".encode("utf-8", "surrogatepass")).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)  # torch's seeds are signed
        while True:
            yield torch.rand(_HALVINGS, generator=generator, dtype=torch.float64)

    def pick(
        self, logits: Tensor, texts: list[list[int]], n_prompts: list[int], uniforms: Iterable[Tensor]
    ) -> list[Pick]:
        """Picks one token per row of logits [N, V].

        For each row, `texts` has all token ids so far, n_prompts says how many of them are the prompt's, and
        `uniforms` has [_HALVINGS] random numbers. Greedy picks do not read `uniforms`, so a generator draws nothing.
        Where logits are NaN, so is the log-probability. Raises UserError if the settings forbid all tokens of a row.
        """
        logits = logits.float()
        processed = process_logits(logits, texts, n_prompts, self.decode, self.eos_id)
        if processed is not logits:
            for row in (processed.amax(-1) == -torch.inf).nonzero()[:1, 0].tolist():
                raise nothing_left(self.decode, len(texts[row]) - n_prompts[row])
        if self.decode.greedy:
            kept = torch.ones(len(texts), dtype=torch.long)
            tokens = processed.argmax(-1)  # [N]
        else:
            filtered = filter_logits((processed if processed.is_cuda else processed.cpu()).double(), self.decode)
            kept = (filtered > -torch.inf).sum(-1)
            tokens = draw(filtered, torch.stack(list(uniforms)).to(filtered.device)).to(logits.device)  # [N]
        logprobs = logits.log_softmax(-1)  # [N, V]
        chosen = logprobs.gather(-1, tokens[:, None])  # [N, 1]
        fields = [tokens.tolist(), chosen[:, 0].tolist()]  # one list per field of Pick
        if self.decode.logprobs is not None:
            ranks = (logprobs > chosen).sum(-1) + 1
            best = logprobs.topk(min(self.decode.logprobs, logprobs.shape[-1]))
            pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            fields += [ranks.tolist(), kept.tolist(), [list(zip(*pair, strict=True)) for pair in pairs]]
        return [Pick(*row) for row in zip(*fields, strict=True)]


def draw(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Token ids [N] drawn from filtered logits [N, V] by uniform numbers [N, _HALVINGS].

    The vocabulary is halved until one token is left; each time, another random number decides which half stays.
    Rounding of the logits, which depends on the batch size, can change the result only at one of these few
    comparisons. A search in the cumulative distribution has a border at every token that rounding can move.
    """
    V = logits.shape[-1]
    halvings = (V - 1).bit_length()
    masses = [F.pad(logits.softmax(-1), (0, 2**halvings - V))]  # probabilities of tokens, then of spans of 2, 4, ...
    for _ in range(halvings):
        masses.append(masses[-1][:, 0::2] + masses[-1][:, 1::2])
    both, *halves = reversed(masses)
    spans = torch.zeros(len(logits), 1, dtype=torch.long, device=logits.device)
    for mass, uniform in zip(halves, uniforms.t(), strict=False):
        left = mass.gather(-1, 2 * spans)
        spans = 2 * spans + (uniform[:, None] * both.gather(-1, spans) >= left)
        both = mass
    return spans[:, 0]
