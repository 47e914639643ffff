"""Choosing the next token. Every sample has its own random numbers, so nothing else can change it."""

import hashlib

import torch
from torch import Tensor

from gpt2x.decoding.filters import filter_logits
from gpt2x.schema import DecodeConfig


class Sampler:
    """Picks tokens for the rows of a batch; `keys` are the (prompt, sample index) of each row."""

    def __init__(self, decode: DecodeConfig, seed: int, keys: list[tuple[str, int]]) -> None:
        self.decode = decode
        self.generators = [torch.Generator().manual_seed(_seed(seed, *key)) for key in keys]

    def pick(self, logits: Tensor) -> Tensor:
        """logits [B, V] -> token ids [B], on the CPU when sampled.

        One uniform number a row, looked up in the cumulative distribution in vocabulary order and in
        float64, so that rounding in the logits (another batch size, say) all but never moves a pick.
        """
        if self.decode.greedy:
            return logits.argmax(-1)
        probabilities = filter_logits(logits.cpu().double(), self.decode).softmax(-1)  # [B, V]
        cumulative = probabilities.cumsum(-1)
        uniform = torch.cat([torch.rand(1, generator=g, dtype=torch.float64) for g in self.generators])  # [B]
        threshold = uniform[:, None] * cumulative[:, -1:]
        return torch.searchsorted(cumulative, threshold, right=True)[:, 0]


def _seed(seed: int, prompt: str, sample: int) -> int:
    digest = hashlib.sha256(f"{seed}/{sample}/{prompt}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch's seeds are signed
