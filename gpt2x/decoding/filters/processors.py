"""Changes to the next token's logits that depend on the text so far: repetition penalties and forbidden tokens.

The rules are those of Hugging Face's RepetitionPenaltyLogitsProcessor, NoRepeatNGramLogitsProcessor and
MinNewTokensLengthLogitsProcessor (transformers/generation/logits_process.py), applied in this order.
"""

from itertools import chain

import torch
from torch import Tensor

from gpt2x.config.decode import DecodeConfig
from gpt2x.errors import UserError


def process_logits(
    logits: Tensor, texts: list[list[int]], n_prompts: list[int], decode: DecodeConfig, eos_id: int | None
) -> Tensor:
    """logits [N, V] -> [N, V] under repetition_penalty, no_repeat_ngram_size and min_new_tokens, where these are set.

    The text of a row is its prompt, whose number of tokens is in n_prompts, and the new tokens. The logits are not
    changed in place; where no setting applies, they are returned themselves.
    """
    if decode.repetition_penalty != 1.0:
        logits = penalize_repetition(logits, texts, decode.repetition_penalty)
    if decode.no_repeat_ngram_size is not None:
        logits = forbid(logits, [repeating_tokens(text, decode.no_repeat_ngram_size) for text in texts])
    if eos_id is not None and decode.min_new_tokens:
        n_new = [len(text) - n_prompt for text, n_prompt in zip(texts, n_prompts, strict=True)]
        logits = forbid(logits, [{eos_id} if n < decode.min_new_tokens else set() for n in n_new])
    return logits


def nothing_left(decode: DecodeConfig, n_new: int) -> UserError:
    """The error for a text of n_new new tokens, after which these settings forbid all tokens."""
    keys = [key for key in ("no_repeat_ngram_size", "min_new_tokens") if decode.first_set(key)]
    settings = " and ".join(f"decode.{key}={getattr(decode, key)}" for key in keys)
    verb = "forbid" if len(keys) > 1 else "forbids"
    fix = f"decode.max_new_tokens={n_new} or fewer" if n_new else "another value"
    return UserError(f"{settings} {verb} all tokens after {n_new} new tokens; use {fix}")


def penalize_repetition(logits: Tensor, texts: list[list[int]], penalty: float) -> Tensor:
    """Divides the logits [N, V] of the tokens of each row's text by the penalty, or multiplies those below 0.

    Each token is penalised once, no matter how often the text has it (Keskar et al., arXiv:1909.05858).
    """
    cells = _cells([set(text) for text in texts], logits.device)
    seen = logits[cells]
    return logits.index_put(cells, torch.where(seen < 0, seen * penalty, seen / penalty))


def repeating_tokens(text: list[int], n: int) -> set[int]:
    """The tokens that, appended to the text, would complete an n-gram that it already has."""
    begun = text[len(text) - n + 1 :]
    return {text[i + n - 1] for i in range(len(text) - n + 1) if text[i : i + n - 1] == begun}


def forbid(logits: Tensor, tokens: list[set[int]]) -> Tensor:
    """Sets some tokens of each row of logits [N, V] to -inf."""
    if not any(tokens):
        return logits
    return logits.index_put(_cells(tokens, logits.device), logits.new_tensor(-torch.inf))


def _cells(tokens: list[set[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column indices of these tokens: one set of tokens per row."""
    rows = torch.arange(len(tokens)).repeat_interleave(torch.tensor([len(ids) for ids in tokens]))
    columns = torch.tensor(list(chain.from_iterable(tokens)))
    return rows.to(device), columns.to(device)
