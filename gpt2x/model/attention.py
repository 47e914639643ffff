"""Causal self-attention and its KV cache.

Shapes, here and in the other model files:
B batch, T new tokens, S all tokens so far (cached + new), C n_embd, H n_head, D = C / H, V vocab_size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2x.linear import Linear
from gpt2x.model.config import GPT2Config


class KVCache:
    """Keys and values of every layer, in memory set aside once: for `rows` texts of up to `capacity` tokens.

    A row's tokens stand at 0 to its length. What lies past that counts for nothing (but must be finite), and
    is overwritten: lowering a length drops its last tokens.
    """

    def __init__(self, k: Tensor, v: Tensor, lengths: list[int]) -> None:
        self.k, self.v = k, v  # [n_layer, B, H, capacity, D]
        self.lengths = lengths

    def rows(self, start: int, stop: int) -> "KVCache":
        """Some of the rows, in the same memory."""
        return KVCache(self.k[:, start:stop], self.v[:, start:stop], self.lengths[start:stop])

    def copy(self, source: int, target: int, length: int) -> None:
        """Makes a row hold the first `length` tokens of another."""
        for memory in (self.k, self.v):
            memory[:, target, :, :length] = memory[:, source, :, :length]
        self.lengths[target] = length

    def reorder(self, rows: Tensor, start: int = 0) -> None:
        """Makes row i what row rows[i] is, and drops the rows past those; before `start` they are the same already."""
        B, S = len(rows), max(self.lengths)
        for memory in (*self.k, *self.v):  # a layer at a time, for there is a copy in between
            memory[:B, :, start:S] = memory[rows, :, start:S]
        self.k, self.v, self.lengths = self.k[:, :B], self.v[:, :B], [self.lengths[row] for row in rows.tolist()]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Writes k and v, [B, H, T, D], after each row's tokens, not yet counted; returns views, [B, H, S, D]."""
        T, S = k.shape[2], max(self.lengths) + k.shape[2]
        keys, values = self.k[layer], self.v[layer]
        if min(self.lengths) + T == S:
            keys[:, :, S - T : S], values[:, :, S - T : S] = k, v
        else:
            starts = torch.tensor(self.lengths, device=k.device)[:, None]
            at = torch.arange(len(starts), device=k.device)[:, None], starts + torch.arange(T, device=k.device)
            for memory, new in ((keys, k), (values, v)):
                memory.transpose(1, 2)[at] = new.transpose(1, 2)  # [B, T, H, D]
        return keys[:, :, :S], values[:, :, :S]


class Attention(nn.Module):
    """Multi-head causal self-attention: c_attn makes q, k and v in one product, c_proj mixes the heads."""

    def __init__(self, config: GPT2Config, layer: int) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.layer = layer
        self.c_attn = Linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = Linear(config.n_embd, config.n_embd)
        self.attn_dropout = nn.Dropout(config.dropout)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """x [B, T, C] -> [B, T, C]; mask [B, 1, T, S] is True where a query may look.

        Without a mask, T tokens are causal among themselves, and one token sees all of the cache.
        """
        B, T, C = x.shape
        q, k, v = (
            part.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)  # [B, H, T, D]
            for part in self.c_attn(x).split(C, dim=2)
        )
        if cache is not None:
            k, v = cache.append(self.layer, k, v)  # [B, H, S, D]
        dropout_p = self.attn_dropout.p if self.training else 0.0
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout_p, is_causal=mask is None and T > 1
        )  # [B, H, T, D]
        y = y.transpose(1, 2).reshape(B, T, C)
        return self.resid_dropout(self.c_proj(y))
