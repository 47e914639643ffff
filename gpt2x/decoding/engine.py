"""Running the model: prefill reads prompts, decode_one_token adds one token to each text, and verify several."""

import torch
from torch import Tensor

from gpt2x.decoding.graph import has_graphs, step_on
from gpt2x.memory import available_memory
from gpt2x.model import kernels
from gpt2x.model.cache import KVCache
from gpt2x.model.gpt2 import GPT2

# Tokens per forward pass, padding included: with more, the products become no faster, and memory use grows.
_PREFILL_TOKENS = 512


def pack(model: GPT2) -> None:
    """Copies the weights into an order that is faster for many passes over several tokens, if memory allows it."""
    if available_memory() < 2 * sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()):
        return
    kernels.pack(model)


@torch.inference_mode()
def prefill(model: GPT2, prompts: list[list[int]], cache: KVCache) -> Tensor:
    """Adds prompts of any lengths to the cache as new rows; returns the logits [B, V] for the token after each.

    Prompts go through the model in groups, padded on the right: a token does not depend on what follows it, and the
    padding does not count in the cache's lengths. Equal prompts that follow each other go through the model once.
    Raises ValueError where a prompt exceeds n_positions.
    """
    logits = []
    while prompts:
        group = prompts[:1]
        rows = [0]  # for each prompt, its row in the group
        for prompt in prompts[1:]:
            if prompt != group[-1]:
                if (len(group) + 1) * max(map(len, [*group, prompt])) > _PREFILL_TOKENS:
                    break
                group.append(prompt)
            rows.append(len(group) - 1)
        logits.append(_forward(model, group, cache.unused(len(group)))[rows])
        start, lengths = len(cache.lengths), [len(group[row]) for row in rows]
        for i in reversed(range(len(rows))):  # from the last row, as each source lies before its copies
            if rows[i] < i:
                cache.copy(start + rows[i], start + i, lengths[i])
        cache.add_rows(lengths)
        prompts = prompts[len(rows) :]
    return torch.cat(logits)


def _forward(model: GPT2, prompts: list[list[int]], cache: KVCache) -> Tensor:
    """The logits [B, V] for the token after each prompt."""
    ids = _padded(model, prompts)
    last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=ids.device)
    hidden = model.transformer(ids, cache)[torch.arange(len(prompts), device=ids.device), last]  # [B, C]
    return model.lm_head(hidden)


@torch.inference_mode()
def decode_one_token(model: GPT2, tokens: list[int], cache: KVCache) -> Tensor:
    """Adds one token to each row of the cache; returns the logits [B, V] for the next token of each.

    On a GPU, the next call for this cache overwrites them.
    """
    if not has_graphs(cache):
        return verify(model, [[token] for token in tokens], cache)[:, 0]
    logits = step_on(model, cache)(tokens, cache.lengths)
    cache.advance(1)
    return logits


@torch.inference_mode()
def verify(model: GPT2, tokens: list[list[int]], cache: KVCache) -> Tensor:
    """Adds tokens to each row of the cache; returns the logits [B, T, V] for the token after each of them.

    All rows grow by T, the largest number of tokens: the caller truncates the cache to the tokens that count.
    """
    return model(_padded(model, tokens), cache)


def _padded(model: GPT2, texts: list[list[int]]) -> Tensor:
    T = max(map(len, texts))
    return torch.tensor([text + [0] * (T - len(text)) for text in texts], device=model.lm_head.weight.device)  # [B, T]
