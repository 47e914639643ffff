"""GPT-2 with Hugging Face's module and parameter names, and nn.Linear where Hugging Face has Conv1D."""

import torch
from torch import Tensor, nn

from gpt2x.model.block import Block
from gpt2x.model.cache import KVCache
from gpt2x.model.config import GPT2Config


class Transformer(nn.Module):
    """Embeddings, blocks and the final norm: tokens in, hidden states out."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        # nn.Embedding would draw its weight; on the meta device, that draw costs seconds of imports inside torch.
        self.wte = nn.Embedding.from_pretrained(torch.empty(config.vocab_size, config.n_embd), freeze=False)
        self.wpe = nn.Embedding.from_pretrained(torch.empty(config.n_positions, config.n_embd), freeze=False)
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)

    def forward(self, input_ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """input_ids [B, T] -> hidden states [B, T, C]. Adds T tokens to each row of the cache, or to B new rows.

        Raises ValueError where a row would exceed n_positions.
        """
        B, T = input_ids.shape
        if cache is None:
            S, positions, mask = T, torch.arange(T, device=input_ids.device)[None], None
        else:
            S, positions, mask = cache.place(B, T)
        if self.config.n_positions < S:
            raise ValueError(f"{S} tokens do not fit in n_positions {self.config.n_positions}")
        x = self.drop(self.wte(input_ids) + self.wpe(positions))  # [B, T, C]
        for block in self.h:
            x = block(x, mask, cache)
        if cache is not None:
            cache.advance(T)
        return self.ln_f(x)


class GPT2(nn.Module):
    """The language model: a Transformer, and a head that shares the weight of wte."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        self.transformer = Transformer(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.tie()

    def forward(self, input_ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """input_ids [B, T] -> logits [B, T, V]; arguments and errors as in Transformer."""
        return self.lm_head(self.transformer(input_ids, cache))

    def tie(self) -> None:
        """Makes lm_head use the weight of wte; to be repeated after that weight is replaced."""
        self.lm_head.weight = self.transformer.wte.weight

    def new_cache(self, rows: int, capacity: int) -> KVCache:
        """A cache for `rows` texts of up to `capacity` tokens, none in use, in the model's dtype and on its device."""
        c = self.config
        return KVCache(*self.lm_head.weight.new_zeros(2, c.n_layer, rows, c.n_head, capacity, c.n_embd // c.n_head))

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Draws all weights from one seeded generator (Radford et al., 2019, section 2.3).

        Matrices are normal with a standard deviation of 0.02, that of c_proj divided by sqrt(2 n_layer), as there
        are 2 n_layer additions to the residual stream. Biases are 0, and the weights of norms 1.
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
