"""The row of benchmark.csv."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BenchmarkRow:
    """benchmark.csv: one row per engine, dtype and batch size. Most columns are times: they differ from run to run."""

    engine: str
    """gpt2x | gpt2x_lookup | transformers | ctranslate2 | openvino | llamacpp."""
    dtype: str
    """int8 is a format of the engine's own: llamacpp's is q8_0."""
    batch: int
    """Prompts generated together."""
    prompt_tokens: int
    new_tokens: int
    """New tokens per prompt, chosen greedily."""
    ms_per_step: float
    """Time of a step, which makes one token for every row: median over the rounds. The first token is not included."""
    ms_per_step_p10: float
    ms_per_step_p90: float
    tokens_per_second: float
    """New tokens of all rows, divided by the time of the whole generation, prompts included; median over the rounds."""
    ratio_to_transformers: float | None
    """Time of transformers in float32 divided by this engine's, in the same round; median. Empty without it."""
    first_token_ms: float
    """Time to generate one token per row: median over the rounds."""
    peak_rss_mb: float
    """Peak memory of the engine's process over its whole life, so over all batch sizes, in units of 1e6 bytes."""
    load_seconds: float
    """Time from the end of the imports to a model that is ready; its files are in the page cache."""
    same_tokens: float | None
    """Share of the new tokens before a row's first difference from transformers in float32 (else from gpt2x)."""
