"""The decoding loop: prefill the prompts once, then one token at a time through the KV cache."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from gpt2x.errors import UserError
from gpt2x.model.gpt2 import GPT2


class Picker(Protocol):
    def pick(self, logits: Tensor) -> Tensor: ...


@dataclass
class Completion:
    """What a model adds to a prompt."""

    ids: list[int] = field(default_factory=list)
    """New tokens, the end-of-text token included."""
    finish_reason: str = "length"
    """length, or eos."""
    logprob: float = 0.0
    """Sum over the new tokens, in nats, under the unfiltered model."""


def check_length(n_prompt: int, max_new_tokens: int, n_positions: int, what: str) -> None:
    """UserError if a prompt is empty, or it and its new tokens do not fit in the context."""
    if n_prompt == 0:
        raise UserError(f"{what} is empty")
    if n_prompt > n_positions:
        raise UserError(f"{what} has {n_prompt} tokens, more than the model's context of {n_positions}; shorten it")
    if n_prompt + max_new_tokens > n_positions:
        raise UserError(
            f"{what} has {n_prompt} tokens: with decode.max_new_tokens={max_new_tokens} that is more than the "
            f"model's context of {n_positions}; use decode.max_new_tokens={n_positions - n_prompt} or fewer"
        )


@torch.inference_mode()
def generate(
    model: GPT2,
    prompts: list[list[int]],
    picker: Picker,
    max_new_tokens: int,
    eos_id: int | None,
    on_token: Callable[[int], None] = lambda token: None,
) -> list[Completion]:
    """Continues a batch of prompts, of any lengths; on_token gets the first row's tokens as they come.

    Raises ValueError where a prompt and its new tokens do not fit in n_positions.
    """
    device = model.lm_head.weight.device
    longest = max(map(len, prompts))
    capacity = longest + max_new_tokens
    input_ids = torch.tensor([[0] * (longest - len(ids)) + ids for ids in prompts], device=device)  # [B, T]
    mask = None
    if any(len(ids) < longest for ids in prompts):  # left padding
        padding = torch.tensor([longest - len(ids) for ids in prompts], device=device)
        mask = (torch.arange(capacity, device=device) >= padding[:, None]).long()  # [B, capacity]
    cache = model.new_cache(len(prompts), capacity)
    completions = [Completion() for _ in prompts]
    unfinished = set(range(len(prompts)))
    for S in range(longest, capacity):
        hidden = model.transformer(input_ids, None if mask is None else mask[:, :S], cache)[:, -1]  # [B, C]
        logits = model.lm_head(hidden).float()  # [B, V]
        tokens = picker.pick(logits).to(device)  # [B]
        logprobs = logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]  # [B]
        for row, (token, logprob) in enumerate(zip(tokens.tolist(), logprobs.tolist(), strict=True)):
            if row not in unfinished:
                continue
            completions[row].ids.append(token)
            completions[row].logprob += logprob
            if token == eos_id:
                completions[row].finish_reason = "eos"
                unfinished.discard(row)
            elif row == 0:
                on_token(token)
        if not unfinished:
            break
        input_ids = tokens[:, None]  # [B, 1]
    return completions
