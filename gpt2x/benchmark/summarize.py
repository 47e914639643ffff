"""Makes the rows of benchmark.csv."""

import numpy as np

from gpt2x.benchmark.agreement import find_baseline, same_tokens
from gpt2x.benchmark.engines import Variant
from gpt2x.benchmark.measured import Measured, Turn
from gpt2x.benchmark.rows import BenchmarkRow


def benchmark_rows(found: list[Measured], prompt_tokens: int) -> list[BenchmarkRow]:
    """One row per batch size and engine, sorted by batch size, then by engine, in the order of the settings."""
    batches = dict.fromkeys(batch for each in found for batch in each.turns)
    return [_row(each, batch, prompt_tokens, found) for batch in batches for each in found]


def _row(each: Measured, batch: int, prompt_tokens: int, found: list[Measured]) -> BenchmarkRow:
    turns = each.turns[batch]
    new_tokens = len(turns[0].tokens[0])
    steps = [1e3 * turn.step_seconds for turn in turns]
    seconds = _median([turn.seconds for turn in turns])
    baseline = find_baseline(found)
    return BenchmarkRow(
        engine=each.variant.engine,
        dtype=each.variant.dtype,
        batch=batch,
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        ms_per_step=_median(steps),
        ms_per_step_p10=float(np.percentile(steps, 10)),
        ms_per_step_p90=float(np.percentile(steps, 90)),
        tokens_per_second=batch * new_tokens / seconds,
        ratio_to_transformers=_ratio(turns, batch, found),
        first_token_ms=1e3 * _median([turn.first_seconds for turn in turns]),
        peak_rss_mb=each.peak_rss / 1e6,
        load_seconds=each.load_seconds,
        same_tokens=same_tokens(turns, baseline.turns[batch]) if baseline else None,
    )


def _ratio(turns: list[Turn], batch: int, found: list[Measured]) -> float | None:
    peers = [each for each in found if each.variant == Variant("transformers", "float32")]
    if not peers:
        return None
    return _median([peer.seconds / turn.seconds for peer, turn in zip(peers[0].turns[batch], turns, strict=True)])


def _median(values: list[float]) -> float:
    return float(np.median(values))
