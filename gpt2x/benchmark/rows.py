"""The row of benchmark.csv."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BenchmarkRow:
    """benchmark.csv: one row an engine, dtype and batch size; of times, so no two runs give the same bytes."""

    engine: str
    """gpt2x | gpt2x_lookup | transformers | ctranslate2 | openvino."""
    dtype: str
    batch: int
    """Prompts generated together."""
    prompt_tokens: int
    new_tokens: int
    """Of each prompt, all greedy."""
    ms_per_step: float
    """A step is a token of every row. Median over the rounds: new_tokens' time less the first's, over the others."""
    ms_per_step_p10: float
    ms_per_step_p90: float
    tokens_per_second: float
    """New tokens of all rows over the time of the whole generation, prompts included; median over the rounds."""
    ratio_to_transformers: float | None
    """Time of transformers in float32 over this one's, in the same round; median. Empty if that was left out."""
    first_token_ms: float
    """A generation of one token a row: median over the rounds."""
    peak_rss_mb: float
    """Of the engine's process, from its start to its end, so over all batch sizes; 1e6 bytes."""
    load_seconds: float
    """From nothing but imports to a model that is ready, its files in the page cache."""
    same_tokens: float | None
    """Share of the new tokens before a row's first difference from transformers in float32 (else from gpt2x)."""
