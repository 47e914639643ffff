"""The decoding loop: prefill the prompts once, then one token at a time through the KV cache."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from gpt2x.decoding.engine import decode_one_token, prefill
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
    cache = model.new_cache(len(prompts), max(map(len, prompts)) + max_new_tokens)
    completions = [Completion() for _ in prompts]
    unfinished = set(range(len(prompts)))
    logits = prefill(model, prompts, cache).float()  # [B, V]
    for _ in range(max_new_tokens):
        tokens = picker.pick(logits).to(logits.device)  # [B]
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
        logits = decode_one_token(model, tokens.tolist(), cache).float()
    return completions
