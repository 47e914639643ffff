"""GPT-2 with Hugging Face's module and parameter names, and nn.Linear where Hugging Face has Conv1D."""

import torch
from torch import Tensor, nn

from gpt2x.model.attention import KVCache, LayerCache
from gpt2x.model.block import Block
from gpt2x.model.config import GPT2Config


class Transformer(nn.Module):
    """Embeddings, blocks and the final norm: tokens in, hidden states out."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        # With its weight given, nn.Embedding draws no numbers: on the meta device that draw costs seconds of imports.
        self.wte = nn.Embedding(config.vocab_size, config.n_embd, _weight=torch.empty(config.vocab_size, config.n_embd))
        self.wpe = nn.Embedding(
            config.n_positions, config.n_embd, _weight=torch.empty(config.n_positions, config.n_embd)
        )
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """input_ids [B, T] -> hidden states [B, T, C]; appends T tokens to the cache.

        attention_mask [B, S] is 0 on left padding and 1 on text; it covers the cached tokens too.
        Raises ValueError past n_positions.
        """
        T = input_ids.shape[1]
        S = T + (cache[0].length if cache else 0)
        if self.config.n_positions < S:
            raise ValueError(f"{S} tokens do not fit in n_positions {self.config.n_positions}")
        if attention_mask is None:
            positions = torch.arange(S - T, S, device=input_ids.device)[None]  # [1, T]
        else:
            positions = (attention_mask.cumsum(1) - 1).clamp(min=0)[:, -T:]  # [B, T]
        x = self.drop(self.wte(input_ids) + self.wpe(positions))  # [B, T, C]
        mask = visible(T, S, attention_mask, input_ids.device)
        for i, block in enumerate(self.h):
            x = block(x, mask, cache[i] if cache else None)
        return self.ln_f(x)


class GPT2(nn.Module):
    """The language model: a Transformer and a head that shares wte's weight."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        self.transformer = Transformer(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.tie()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """input_ids [B, T] -> logits [B, T, V]; arguments and errors as in Transformer."""
        return self.lm_head(self.transformer(input_ids, attention_mask, cache))

    def tie(self) -> None:
        """Makes lm_head use wte's weight; again after anything that replaces wte's weight."""
        self.lm_head.weight = self.transformer.wte.weight

    def new_cache(self, batch: int, capacity: int) -> KVCache:
        """An empty cache for `batch` rows of up to `capacity` tokens, in the model's dtype and on its device."""
        return [LayerCache(self.config, batch, capacity, self.lm_head.weight) for _ in self.transformer.h]

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Draws all weights from one seeded generator.

        Normal with std 0.02, biases 0, norms 1, and each c_proj smaller by sqrt(2 n_layer), one for
        every addition to the residual stream (Radford et al., 2019, section 2.3).
        """
        generator = torch.Generator(self.lm_head.weight.device).manual_seed(seed)
        residual_std = 0.02 / (2 * self.config.n_layer) ** 0.5
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif ".ln_" in name:
                parameter.fill_(1.0)
            else:
                parameter.normal_(0.0, residual_std if "c_proj" in name else 0.02, generator=generator)


def visible(T: int, S: int, attention_mask: Tensor | None, device: torch.device) -> Tensor | None:
    """Which of S keys each of the last T queries may look at: bool [B or 1, 1, T, S].

    None where attention needs no mask: nothing padded, and either no cache or a single query.
    """
    if attention_mask is None and (T == S or T == 1):
        return None
    mask = torch.ones(T, S, dtype=torch.bool, device=device).tril(S - T)[None, None]  # [1, 1, T, S]
    if attention_mask is not None:
        itself = torch.eye(T, S, dtype=torch.bool, device=device).roll(S - T, dims=1)
        # A padded query sees itself: some kernels answer NaN for a softmax over nothing, and a NaN value spreads.
        mask = mask & attention_mask[:, None, None, :].bool() | itself  # [B, 1, T, S]
    return mask
