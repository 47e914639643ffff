"""Prompts as tokens that fit in the model's context. A prompt of many megabytes must not cost gigabytes of memory."""

from gpt2x.errors import UserError
from gpt2x.tokenizer import Tokenizer

# Encoding takes a few hundred bytes of memory per character. Longer texts are looked at before they are encoded.
_LONG = 100_000
# At most this many characters of a text that may be cropped are encoded, which is more than any context holds.
_MOST_CROPPED = 1_000_000


def encode_fitting(
    tokenizer: Tokenizer, text: str, max_new_tokens: int, n_positions: int, what: str, otherwise: str = ""
) -> list[int]:
    """The tokens of a prompt, at least one, which fit in the context together with the new tokens.

    Otherwise raises UserError. Its message names the prompt as `what`, and ends with `otherwise`: another way to mend
    it. A text that cannot fit, however long its tokens are, is not encoded.
    """
    least = tokenizer.fewest_tokens(text) if len(text) > _LONG else 0
    if least > n_positions:
        raise _too_long(f"at least {least}", n_positions, what, otherwise)
    ids = tokenizer.encode(text)
    n_prompt = len(ids)
    if n_prompt == 0:
        raise UserError(f"{what} is empty")
    if n_prompt > n_positions:
        raise _too_long(f"{n_prompt}", n_positions, what, otherwise)
    if n_prompt + max_new_tokens > n_positions:
        raise UserError(
            f"{what} has {n_prompt} tokens: with decode.max_new_tokens={max_new_tokens} that is more than the "
            f"model's context of {n_positions}; use decode.max_new_tokens={n_positions - n_prompt} or fewer{otherwise}"
        )
    return ids


def encode_end(tokenizer: Tokenizer, text: str, what: str) -> list[int]:
    """The tokens of a prompt of any length, at least one: of its last million characters, if it is longer.

    The text is cut at a space, where a token begins. Raises UserError if the text has no tokens.
    """
    if len(text) > _MOST_CROPPED:
        text = text[-_MOST_CROPPED:]
        text = text[max(0, text.find(" ", 0, 1000)) :]
    ids = tokenizer.encode(text)
    if not ids:
        raise UserError(f"{what} is empty")
    return ids


def _too_long(tokens: str, n_positions: int, what: str, otherwise: str) -> UserError:
    return UserError(
        f"{what} has {tokens} tokens, more than the model's context of {n_positions}; shorten it{otherwise}"
    )
