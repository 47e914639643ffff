"""Running the model: prefill takes prompts in, decode_one_token adds a token to each text, verify several."""

import torch
from torch import Tensor

from gpt2x.memory import available_memory
from gpt2x.model.cache import KVCache
from gpt2x.model.gpt2 import GPT2
from gpt2x.model.kernels.linear import Linear

# Tokens that one forward pass takes in, padding and all: the products gain nothing from more, memory is spared by less.
_PREFILL_TOKENS = 512


def pack(model: GPT2) -> None:
    """Lays the weights out anew for many passes over several tokens: a copy of them, where memory has room to spare."""
    if available_memory() < 2 * sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()):
        return
    for module in model.modules():
        if isinstance(module, Linear):
            module.pack()


@torch.inference_mode()
def prefill(model: GPT2, prompts: list[list[int]], cache: KVCache) -> Tensor:
    """Adds the prompts, of any lengths, to the cache as new rows; returns logits [B, V] of the token after each.

    Prompts of like length go through the model together, padded on the right: what comes after a token
    does not reach it, and the padding is cut off the cache again. Equal prompts that follow each other go
    through it once. Raises ValueError past n_positions.
    """
    logits = []
    while prompts:
        group = prompts[:1]
        rows = [0]  # of the group, for each prompt
        for prompt in prompts[1:]:
            if prompt != group[-1]:
                if (len(group) + 1) * max(map(len, [*group, prompt])) > _PREFILL_TOKENS:
                    break
                group.append(prompt)
            rows.append(len(group) - 1)
        logits.append(_forward(model, group, cache.unused(len(group)))[rows])
        start, lengths = len(cache.lengths), [len(group[row]) for row in rows]
        for i in reversed(range(len(rows))):  # from the last: each source lies before its copies
            if rows[i] < i:
                cache.copy(start + rows[i], start + i, lengths[i])
        cache.lengths += lengths
        prompts = prompts[len(rows) :]
    return torch.cat(logits)


def _forward(model: GPT2, prompts: list[list[int]], cache: KVCache) -> Tensor:
    """Logits [B, V] after each prompt."""
    ids = _padded(model, prompts)
    last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=ids.device)
    hidden = model.transformer(ids, cache)[torch.arange(len(prompts), device=ids.device), last]  # [B, C]
    return model.lm_head(hidden)


@torch.inference_mode()
def decode_one_token(model: GPT2, tokens: list[int], cache: KVCache) -> Tensor:
    """Adds one token to each row of the cache; returns logits [B, V] of the token after it."""
    return verify(model, [[token] for token in tokens], cache)[:, 0]


@torch.inference_mode()
def verify(model: GPT2, tokens: list[list[int]], cache: KVCache) -> Tensor:
    """Adds some tokens to each row of the cache; returns logits [B, T, V] of the token after each.

    All rows grow by the longest's T: the caller cuts cache.lengths to what shall stay.
    """
    return model(_padded(model, tokens), cache)


def _padded(model: GPT2, texts: list[list[int]]) -> Tensor:
    T = max(map(len, texts))
    return torch.tensor([text + [0] * (T - len(text)) for text in texts], device=model.lm_head.weight.device)  # [B, T]
