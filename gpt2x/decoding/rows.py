"""The rows of generations.csv and tokens.csv."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)  # there may be millions
class GenerationRow:
    """generations.csv: one row per sample. The other columns of a prompts_file follow these."""

    prompt_id: str
    sample: int
    prompt: str
    completion: str
    n_prompt_tokens: int
    n_new_tokens: int
    """Including the end-of-text token, which is not part of the completion."""
    finish_reason: str
    """length | eos | stop: max_new_tokens, the end-of-text token or a stop string."""
    logprob: float
    """Sum over the new tokens, in nats, under the unfiltered model."""
    model: str
    weights: str
    device: str
    """cpu | cuda | mps."""
    dtype: str
    greedy: bool
    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    typical_p: float | None
    repetition_penalty: float
    no_repeat_ngram_size: int | None
    max_new_tokens: int
    min_new_tokens: int
    stop: str | None
    """The stop strings, as a JSON list."""
    num_beams: int
    length_penalty: float
    on_overflow: str
    seed: int


@dataclass(frozen=True, slots=True)  # there may be millions
class TokenRow:
    """tokens.csv, with decode.logprobs=k: per new token, one row per token of the k likeliest, and one for itself."""

    prompt_id: str
    sample: int
    step: int
    """0 for the first new token."""
    rank: int
    """1 for the likeliest."""
    token_id: int
    token: str
    """The text of this token alone; bytes that are not UTF-8 become U+FFFD."""
    logprob: float
    """In nats, under the unfiltered model."""
    chosen: bool
    kept: int
    """Number of tokens that all filters left to choose from at this step; 1 if greedy."""
