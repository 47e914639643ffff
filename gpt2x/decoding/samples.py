"""The samples that a generation run makes: each prompt, num_samples times."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

from gpt2x.checkpoints.load import Checkpoint
from gpt2x.config.decode import DecodeConfig
from gpt2x.decoding.context import encode_end, encode_fitting
from gpt2x.decoding.rows import GenerationRow, TokenRow
from gpt2x.prompts import Prompt

_SHOWN = 20  # characters of a prompt that identify it in a message

Key = tuple[str, int]
"""Prompt id and sample index: what identifies a sample within a run."""


@dataclass(frozen=True, slots=True)  # there may be millions
class Sample:
    """A sample to generate: one row of generations.csv."""

    prompt: Prompt
    ids: "array[int]"
    """The prompt's tokens; with decode.on_overflow=crop, those of its last million characters."""
    index: int
    """Among the samples of this prompt, from 0."""

    @property
    def key(self) -> Key:
        return self.prompt.id, self.index


def key_of(row: GenerationRow | TokenRow) -> Key:
    """The key of the sample that a row belongs to."""
    return row.prompt_id, row.sample


def samples_of(checkpoint: Checkpoint, prompts: list[Prompt], decode: DecodeConfig) -> list[Sample]:
    """All samples of a run, in the order of its tables.

    Raises UserError if a prompt is empty, or does not fit in the context and may not be cropped.
    """
    samples = []
    for prompt in prompts:
        what = "prompt" if len(prompts) == 1 else _what(prompt)
        ids = array("I", _encode(checkpoint, prompt, decode, what))
        samples += [Sample(prompt, ids, index) for index in range(decode.num_samples)]
    return samples


def check_fitting(checkpoint: Checkpoint, prompts: Iterable[Prompt], decode: DecodeConfig) -> None:
    """Raises UserError as samples_of does, for prompts that another job generates; encodes only the long ones."""
    room = checkpoint.model.config.n_positions - decode.max_new_tokens
    for prompt in prompts:
        if decode.on_overflow == "refuse" and len(prompt.text.encode()) > room:  # a token is at least one byte
            _encode(checkpoint, prompt, decode, _what(prompt))


def _what(prompt: Prompt) -> str:
    return f"prompt {prompt.id!r} ({prompt.text[:_SHOWN]!r}...)"


def _encode(checkpoint: Checkpoint, prompt: Prompt, decode: DecodeConfig, what: str) -> list[int]:
    tokenizer = checkpoint.tokenizer
    if decode.on_overflow == "crop":
        return encode_end(tokenizer, prompt.text, what)
    otherwise = "" if decode.num_beams > 1 else "; or keep the last tokens that fit, with decode.on_overflow=crop"
    n_positions = checkpoint.model.config.n_positions
    return encode_fitting(tokenizer, prompt.text, decode.max_new_tokens, n_positions, what, otherwise)
