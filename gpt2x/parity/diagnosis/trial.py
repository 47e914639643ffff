"""Comparing the outputs of known mistakes with the subject's output."""

from collections.abc import Iterable

import torch
from torch import Tensor

from gpt2x.parity.checks import Cause
from gpt2x.parity.comparison import Comparison
from gpt2x.parity.measures import relative_difference
from gpt2x.parity.mistakes.mistake import Mistake

# A trial explains the subject if it comes this much closer to it than the reference does. In float64 the
# tolerance alone decides; where tolerances are wide, being within them is not yet an explanation.
CLOSER = 0.1


def best_match(c: Comparison, trials: Iterable[tuple[Mistake, Tensor]], target: Tensor, expected: Tensor) -> Cause:
    """The mistake whose output is the subject's output `target`, where the reference has `expected`."""
    off = distance(target, expected)
    largest = min(c.tolerance, CLOSER * off)
    causes: dict[float, str] = {}
    for mistake, output in trials:
        value = distance(output, target)
        if value <= largest:
            causes.setdefault(value, mistake.cause)
    if causes:
        # Several mistakes may differ by rounding only. The first is named: a mistake of the whole before one of its
        # parts.
        nearest = max(10 * min(causes), 1e-14)
        return Cause(next(cause for value, cause in causes.items() if value <= nearest))
    factor = factor_between(target, expected)
    if distance(target, factor * expected) <= largest:
        return Cause(f"the right values times {factor:.12g}")
    numbers = f"none of the mistakes tried gives this output, which is {off:.3g} of the reference's scale away"
    return Cause(numbers, known=False)


def factor_between(actual: Tensor, expected: Tensor) -> float:
    """The factor that brings the expected values closest to the actual ones (least squares)."""
    return ((actual * expected).sum() / expected.square().sum()).item()


def distance(actual: Tensor, expected: Tensor) -> float:
    """relative_difference, with NaN equal to NaN, because a mistake may produce the same ones; inf for other shapes."""
    if actual.shape != expected.shape or not torch.equal(actual.isnan(), expected.isnan()):
        return float("inf")
    return relative_difference(actual.nan_to_num(), expected.nan_to_num())
