"""The KV cache: what attention has computed of the tokens so far. Shapes as in model/attention.py."""

import torch
from torch import Tensor


class KVCache:
    """Keys and values of every layer, in memory set aside once, for some texts of up to `capacity` tokens.

    A row's tokens stand at 0 to its length. What lies past that counts for nothing (but must be finite), and
    is overwritten: lowering a length drops its last tokens.
    """

    def __init__(self, k: Tensor, v: Tensor) -> None:
        self.k, self.v = k, v  # [n_layer, rows, H, capacity, D]
        self.lengths: list[int] = []
        """Of the rows in use: the first ones of the memory."""

    def unused(self, rows: int) -> "KVCache":
        """The next rows that are not in use yet, in the same memory."""
        start = len(self.lengths)
        return KVCache(self.k[:, start : start + rows], self.v[:, start : start + rows])

    def copy(self, source: int, target: int, length: int) -> None:
        """Makes a row hold the first `length` tokens of another."""
        for memory in (self.k, self.v):
            memory[:, target, :, :length] = memory[:, source, :, :length]

    def remove(self, row: int) -> None:
        """Takes a row out of use; the last one moves into its place."""
        last = len(self.lengths) - 1
        if row < last:
            self.copy(last, row, self.lengths[last])
        self.lengths[row] = self.lengths[last]
        self.lengths.pop()

    def reorder(self, rows: Tensor, start: int = 0) -> None:
        """Makes row i what row rows[i] is, and drops the rows past those; before `start` they are the same already."""
        B, S = len(rows), max(self.lengths)
        for memory in (*self.k, *self.v):  # a layer at a time, for there is a copy in between
            memory[:B, :, start:S] = memory[rows, :, start:S]
        self.lengths = [self.lengths[row] for row in rows.tolist()]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Writes k and v, [B, H, T, D], after each row's tokens, not yet counted; returns views, [B, H, S, D]."""
        B, _, T, _ = k.shape
        S = max(self.lengths) + T
        keys, values = self.k[layer, :B], self.v[layer, :B]
        if min(self.lengths) + T == S:
            keys[:, :, S - T : S], values[:, :, S - T : S] = k, v
        else:
            at = torch.tensor(self.lengths, device=k.device)[:, None] + torch.arange(T, device=k.device)  # [B, T]
            rows = torch.arange(B, device=k.device)[:, None]  # [B, 1]
            for memory, new in ((keys, k), (values, v)):
                memory.transpose(1, 2)[rows, at] = new.transpose(1, 2)  # [B, T, H, D]
        return keys[:, :, :S], values[:, :, :S]
