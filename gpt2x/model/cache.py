"""The KV cache: the keys and values that attention has computed for the tokens so far. Shapes as in attention.py."""

from collections.abc import Sequence

import torch
from torch import Tensor


class KVCache:
    """Keys and values of every layer for several texts of up to `capacity` tokens, in memory allocated once.

    The first rows of the memory are in use, one per text. A row's tokens fill positions 0 to its length; positions
    past the length are ignored and overwritten, but must be finite.
    """

    def __init__(self, k: Tensor, v: Tensor) -> None:
        self.k, self.v = k, v  # [n_layer, rows, H, capacity, D]
        self._lengths: tuple[int, ...] = ()

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens in each row in use."""
        return self._lengths

    def add_rows(self, lengths: Sequence[int]) -> None:
        """Takes the next rows into use, whose memory holds so many tokens already."""
        self._lengths += tuple(lengths)

    def advance(self, n: int) -> None:
        """Counts the n tokens per row that every layer has appended."""
        self._lengths = tuple(length + n for length in self._lengths)

    def truncate(self, lengths: Sequence[int]) -> None:
        """Drops each row's last tokens, down to the given lengths. Raises ValueError where a row has fewer."""
        if any(new > old for new, old in zip(lengths, self._lengths, strict=True)):
            raise ValueError(f"rows of lengths {self._lengths} cannot be truncated to {tuple(lengths)}")
        self._lengths = tuple(lengths)

    def unused(self, rows: int) -> "KVCache":
        """A cache without tokens, in the memory of the next rows that are not in use."""
        start = len(self._lengths)
        return KVCache(self.k[:, start : start + rows], self.v[:, start : start + rows])

    def copy(self, source: int, target: int, length: int) -> None:
        """Writes the first `length` tokens of a row into the memory of another; no length changes."""
        for memory in (self.k, self.v):
            memory[:, target, :, :length] = memory[:, source, :, :length]

    def remove(self, row: int) -> None:
        """Takes a row out of use; the last row moves into its place."""
        *lengths, last = self._lengths
        if row < len(lengths):
            self.copy(len(lengths), row, last)
            lengths[row] = last
        self._lengths = tuple(lengths)

    def reorder(self, rows: Tensor, start: int = 0) -> None:
        """Makes row i a copy of row rows[i], and takes rows past those out of use.

        The tokens before `start` must be the same in all of these rows: they are not copied.
        """
        B, S = len(rows), max(self._lengths)
        for memory in (*self.k, *self.v):  # one layer at a time, as indexing makes a temporary copy
            memory[:B, :, start:S] = memory[rows, :, start:S]
        self._lengths = tuple(self._lengths[row] for row in rows.tolist())

    def place(self, B: int, T: int) -> tuple[int, Tensor, Tensor | None]:
        """Where T more tokens per row go: S, their positions [B or 1, T], and the mask for Attention.

        Takes B rows into use if none is. There is no mask where the rows are empty, nor for one token per row behind
        rows of equal length, as attention needs none.
        """
        if not self._lengths:
            self.add_rows([0] * B)
        lengths = self._lengths if min(self._lengths) < max(self._lengths) else self._lengths[:1]
        S = max(lengths) + T
        starts = torch.tensor(lengths, device=self.k.device)
        positions = starts[:, None] + torch.arange(T, device=self.k.device)  # [B or 1, T]
        if T == S or (T == 1 and len(lengths) == 1):
            return S, positions, None
        return S, positions, (torch.arange(S, device=self.k.device) <= positions[:, :, None])[:, None]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Writes k and v [B, H, T, D] behind each row's tokens; returns views of all keys and values [B, H, S, D].

        The lengths change with `advance`, after the last layer.
        """
        B, _, T, _ = k.shape
        S = max(self._lengths) + T
        keys, values = self.k[layer, :B], self.v[layer, :B]
        if min(self._lengths) + T == S:
            keys[:, :, S - T : S], values[:, :, S - T : S] = k, v
        else:
            at = torch.tensor(self._lengths, device=k.device)[:, None] + torch.arange(T, device=k.device)  # [B, T]
            rows = torch.arange(B, device=k.device)[:, None]  # [B, 1]
            for memory, new in ((keys, k), (values, v)):
                memory.transpose(1, 2)[rows, at] = new.transpose(1, 2)  # [B, T, H, D]
        return keys[:, :, :S], values[:, :, :S]
