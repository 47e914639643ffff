"""Running the model step by step: prefill writes prompts to the KV cache, decode_one_token adds a token to each row."""

import torch
from torch import Tensor

from gpt2x.model.attention import KVCache
from gpt2x.model.gpt2 import GPT2

# Tokens that one forward pass takes in, padding and all: the products gain nothing from more, memory is spared by less.
_PREFILL_TOKENS = 512


@torch.inference_mode()
def prefill(model: GPT2, prompts: list[list[int]], cache: KVCache) -> Tensor:
    """Writes the prompts, of any lengths, to the rows of an empty cache; returns logits [B, V] of the token after each.

    Prompts of like length go through the model together, padded on the right: what comes after a token
    does not reach it, and the padding is cut off the cache again. Equal prompts that follow each other go
    through it once. Raises ValueError past n_positions.
    """
    logits = []
    start = 0
    while start < len(prompts):
        group = [prompts[start]]
        rows = [0]  # of the group, for each prompt
        for prompt in prompts[start + 1 :]:
            if prompt != group[-1]:
                if (len(group) + 1) * max(map(len, [*group, prompt])) > _PREFILL_TOKENS:
                    break
                group.append(prompt)
            rows.append(len(group) - 1)
        stop = start + len(rows)
        logits.append(_prefill(model, group, cache.rows(start, start + len(group)))[rows])
        for row in reversed(range(len(rows))):  # from the last: a source lies before its copies
            if rows[row] != row:
                cache.copy(start + rows[row], start + row, len(prompts[start + row]))
        cache.lengths[start:stop] = map(len, prompts[start:stop])
        start = stop
    return torch.cat(logits)


def _prefill(model: GPT2, prompts: list[list[int]], cache: KVCache) -> Tensor:
    device = model.lm_head.weight.device
    T = max(map(len, prompts))
    ids = torch.tensor([prompt + [0] * (T - len(prompt)) for prompt in prompts], device=device)  # [B, T]
    last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=device)
    hidden = model.transformer(ids, cache)[torch.arange(len(prompts), device=device), last]  # [B, C]
    return model.lm_head(hidden)


@torch.inference_mode()
def decode_one_token(model: GPT2, tokens: list[int], cache: KVCache) -> Tensor:
    """Adds one token to each row of the cache; returns logits [B, V] of the token after it."""
    ids = torch.tensor(tokens, device=model.lm_head.weight.device)[:, None]  # [B, 1]
    return model(ids, cache)[:, 0]
