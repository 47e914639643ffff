"""From turns to the rows of benchmark.csv."""

import numpy as np

from gpt2x.benchmark.agreement import reference, same_tokens
from gpt2x.benchmark.measure import Measured, Turn
from gpt2x.benchmark.rows import BenchmarkRow


def benchmark_rows(found: list[Measured], prompt_tokens: int) -> list[BenchmarkRow]:
    """By batch size, then in the order of the engines."""
    batches = dict.fromkeys(batch for each in found for batch in each.turns)
    return [_row(each, batch, prompt_tokens, found) for batch in batches for each in found]


def _row(each: Measured, batch: int, prompt_tokens: int, found: list[Measured]) -> BenchmarkRow:
    turns = each.turns[batch]
    new_tokens = len(turns[0].tokens[0])
    steps = [1e3 * turn.step_seconds for turn in turns]
    seconds = _median([turn.seconds for turn in turns])
    expected = reference(found)
    return BenchmarkRow(
        engine=each.worker.engine,
        dtype=each.worker.dtype,
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
        same_tokens=same_tokens(turns, expected.turns[batch]) if expected else None,
    )


def _ratio(turns: list[Turn], batch: int, found: list[Measured]) -> float | None:
    peers = [each for each in found if each.name == ("transformers", "float32")]
    if not peers:
        return None
    return _median([peer.seconds / turn.seconds for peer, turn in zip(peers[0].turns[batch], turns, strict=True)])


def _median(values: list[float]) -> float:
    return float(np.median(values))
