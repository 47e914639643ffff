"""The decode step on a GPU as a CUDA graph: one call launches all operators of the step.

Launched one by one, they take several times as long as the GPU needs to compute them. A graph has fixed shapes and
addresses, so each step computes all rows of the cache's memory, at its whole capacity.

Method: https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs, and gpt-fast
(https://github.com/meta-pytorch/gpt-fast).
"""

import torch
from torch import Tensor

from gpt2x.model.cache import KVCache
from gpt2x.model.gpt2 import GPT2


class FixedCache(KVCache):
    """A cache's memory for one more token in all of its rows. The lengths are a tensor: no shape depends on them."""

    def __init__(self, memory: KVCache) -> None:
        super().__init__(memory.k, memory.v)
        _, rows, _, capacity, _ = memory.k.shape
        self.rows = torch.arange(rows, device=memory.k.device)
        self.at = torch.zeros_like(self.rows)  # [rows]: the tokens in each row so far
        self.slots = torch.arange(capacity, device=memory.k.device)

    def place(self, B: int, T: int) -> tuple[int, Tensor, Tensor | None]:
        """As in KVCache, for T = 1 and all rows: S is the capacity."""
        positions = self.at[:, None]  # [rows, 1]
        return len(self.slots), positions, (self.slots <= positions[:, :, None])[:, None]  # [rows, 1, 1, S]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """As in KVCache; the keys and values [rows, H, S, D] are those of the whole memory."""
        keys, values = self.k[layer], self.v[layer]
        for memory, new in ((keys, k), (values, v)):
            memory[self.rows, :, self.at] = new[:, :, 0]
        return keys, values

    def advance(self, n: int) -> None:
        """Changes nothing: the lengths are set before each step."""


class GraphStep:
    """Adds one token to each row of a cache, with the same operators and addresses every time."""

    def __init__(self, model: GPT2, cache: KVCache) -> None:
        self.model, self.cache = model, FixedCache(cache)
        self.tokens = torch.zeros_like(self.cache.rows)
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, tokens: list[int], lengths: tuple[int, ...]) -> Tensor:
        """Returns the logits [B, V] for the token after each of these; they are overwritten by the next step.

        A row that is not in use holds nothing: whatever it gets at position 0 is overwritten before it is used. On a
        CPU, where there are no graphs, the operators run one by one.
        """
        B = len(tokens)
        new = torch.tensor([tokens, lengths], device=self.tokens.device)
        self.tokens[:B], self.cache.at[:B] = new[0], new[1]
        self.cache.at[B:] = 0
        if not self.tokens.is_cuda:
            return self._run()[:B]
        if self.graph is None:
            self.graph, self.logits = self._capture()
        self.graph.replay()
        return self.logits[:B]

    def _run(self) -> Tensor:
        return self.model(self.tokens[:, None], self.cache)[:, 0]  # [rows, V]

    def _capture(self) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """The graph of one step, and the logits [rows, V] that it overwrites.

        Libraries allocate memory in their first call, which cannot be captured: the step runs once before.
        """
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = self._run()
        return graph, logits


def has_graphs(cache: KVCache) -> bool:
    """Whether the device of the cache has graphs."""
    return cache.k.is_cuda
