"""Causal self-attention.

Shapes, here and in the other model files:
B batch, T new tokens, S all tokens so far (cached + new), C n_embd, H n_head, D = C / H, V vocab_size.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from gpt2x.model.cache import KVCache
from gpt2x.model.config import GPT2Config


class Attention(nn.Module):
    """Multi-head causal self-attention: c_attn makes q, k and v in one product, c_proj mixes the heads."""

    def __init__(self, config: GPT2Config, layer: int) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.layer = layer
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.attn_dropout = nn.Dropout(config.dropout)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """x [B, T, C] -> [B, T, C]; mask [B or 1, 1, T, S] is True where a query may attend.

        Without a mask, several tokens attend causally to each other, and a single token to everything in the cache.
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
