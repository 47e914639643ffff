"""The samples that a generation run makes: each prompt, num_samples times."""

from dataclasses import dataclass

from gpt2x.checkpoints.load import Checkpoint
from gpt2x.config.decode import DecodeConfig
from gpt2x.decoding.context import encode_end, encode_fitting
from gpt2x.decoding.rows import GenerationRow, TokenRow
from gpt2x.prompts import Prompt

_SHOWN = 20  # characters of a prompt that identify it in a message

Key = tuple[str, int]
"""Prompt id and sample index: what identifies a sample within a run."""


@dataclass(frozen=True)
class Sample:
    """A sample to generate: one row of generations.csv."""

    prompt: Prompt
    ids: list[int]
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
    tokenizer, n_positions = checkpoint.tokenizer, checkpoint.model.config.n_positions
    with_beams = decode.num_beams > 1
    otherwise = "" if with_beams else "; or keep the last tokens that fit, with decode.on_overflow=crop"
    for prompt in prompts:
        what = "prompt" if len(prompts) == 1 else f"prompt {prompt.id!r} ({prompt.text[:_SHOWN]!r}...)"
        if decode.on_overflow == "crop":
            ids = encode_end(tokenizer, prompt.text, what)
        else:
            ids = encode_fitting(tokenizer, prompt.text, decode.max_new_tokens, n_positions, what, otherwise)
        samples += [Sample(prompt, ids, index) for index in range(decode.num_samples)]
    return samples
