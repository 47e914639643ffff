"""Mistakes that are made with the logits, after the last module."""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from gpt2x.checkpoints.names import dtype_name
from gpt2x.model.gpt2 import GPT2
from gpt2x.parity.causes import Cause, Kind
from gpt2x.parity.diagnosis.trial import factor_between
from gpt2x.parity.measures import ROUNDED, centred, relative_difference, rounded
from gpt2x.parity.mistakes.mistake import Around, Mistake

_CAPS = (10.0, 15.0, 20.0, 30.0, 50.0)  # 30 in Gemma 2 (arXiv:2408.00118), 15 to 50 in speed runs of nanoGPT


def _log_softmax(logits: Tensor) -> Tensor:
    return logits.log_softmax(-1)


def _capped(logits: Tensor, cap: float) -> Tensor:
    return cap * (logits / cap).tanh()


def cause_at_the_end(own: GPT2, actual: Tensor, expected: Tensor, tolerance: float) -> Mistake | None:
    """What was done to the expected logits [T, V] to get the actual ones; None if nothing that is known."""

    def wrong(text: str, change: Callable[[Tensor], Tensor], kind: Kind = Kind.LOGITS) -> Mistake:
        return Mistake(Cause(text, kind=kind), {own.lm_head: Around(own.lm_head, lambda head, x: change(head(x)))})

    off = actual - expected
    largest = tolerance * expected.abs().max()
    if (off - off[:, :1]).abs().max() <= largest:
        if relative_difference(actual, expected.log_softmax(-1)) <= tolerance:
            return wrong("log-probabilities, which softmax does not see: a log_softmax at the end", _log_softmax)
        if relative_difference(actual, centred(expected)) <= tolerance:
            return wrong("logits less their mean at each position, which softmax does not see", centred)
        constants = off[:, :1]
        return wrong(
            "a constant is added at each position, which softmax does not see", lambda logits: logits + constants
        )
    factor = factor_between(actual, expected)
    if factor and relative_difference(actual, factor * expected) <= tolerance:
        return wrong(f"logits scaled by {factor:.12g}", lambda logits: logits * factor)
    if len(off) > 1 and (off - off[:1]).abs().max() <= largest:
        bias = off[0]
        return wrong("a bias is added to the logits", lambda logits: logits + bias)
    if relative_difference(actual, expected.softmax(-1)) <= tolerance:
        return wrong("probabilities instead of logits: a softmax at the end", lambda logits: logits.softmax(-1))
    for cap in _CAPS:
        if relative_difference(actual, _capped(expected, cap)) <= tolerance:
            return wrong(f"logits soft-capped at {cap:g}, by tanh", partial(_capped, cap=cap))
    for half in ROUNDED:
        if relative_difference(actual, rounded(expected, half)) <= tolerance:
            return wrong(f"logits rounded to {dtype_name(half)}", partial(rounded, dtype=half), Kind.ROUNDING)
    return None
