"""Comparing the outputs of known mistakes with the subject's output."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import TypeVar

import torch
from torch import Tensor

from gpt2x.parity.causes import Cause
from gpt2x.parity.measures import relative_difference
from gpt2x.parity.mistakes.mistake import Mistake, can_be_joined

# A trial explains the subject if it comes this much closer to it than the reference does. In float64 the
# tolerance alone decides; where tolerances are wide, being within them is not yet an explanation.
CLOSER = 0.1

T = TypeVar("T")


def matches(trials: Iterable[tuple[T, Tensor]], target: Tensor, expected: Tensor, tolerance: float) -> list[T]:
    """Those trials whose output is the subject's output `target`, where the reference has `expected`; in their order.

    Several mistakes may differ by rounding only; those that differ from the nearest by more are left out.
    """
    largest = _largest(target, expected, tolerance)
    found = [(trial, value) for trial, output in trials if (value := distance(output, target)) <= largest]
    if not found:
        return []
    nearest = max(10 * min(value for _, value in found), 1e-14)
    return [trial for trial, value in found if value <= nearest]


def pairs_of(mistakes: Sequence[Mistake]) -> Iterator[tuple[Mistake, Mistake]]:
    """The pairs that can be made at once; those without a rounding first, none with two."""
    pairs = [pair for pair in combinations(mistakes, 2) if can_be_joined(*pair)]
    for n_roundings in (0, 1):
        yield from (pair for pair in pairs if sum(each.rounds for each in pair) == n_roundings)


def is_mostly_nan(target: Tensor) -> bool:
    """Whether so little is finite that several mistakes may give the same."""
    return target.isfinite().double().mean().item() < 0.5


def unexplained(target: Tensor, expected: Tensor, tolerance: float) -> Cause:
    """The factor between two tensors, if it is all that differs; else unknown, with the distance between them."""
    factor = factor_between(target, expected)
    if (
        factor
        and math.isfinite(factor)
        and distance(target, factor * expected) <= _largest(target, expected, tolerance)
    ):
        return Cause(f"the right values times {factor:.12g}")
    off = distance(target, expected)
    how_far = f"{off:.3g} of the reference's scale away" if math.isfinite(off) else "not finite"
    return Cause(f"none of the mistakes tried gives this output, which is {how_far}", known=False)


def factor_between(actual: Tensor, expected: Tensor) -> float:
    """The factor that brings the expected values closest to the actual ones (least squares)."""
    return ((actual * expected).sum() / expected.square().sum()).item()


def distance(actual: Tensor, expected: Tensor) -> float:
    """relative_difference, with NaN equal to NaN, because a mistake may produce the same ones; inf for other shapes."""
    if actual.shape != expected.shape or not torch.equal(actual.isnan(), expected.isnan()):
        return float("inf")
    return relative_difference(actual.nan_to_num(), expected.nan_to_num())


def _largest(target: Tensor, expected: Tensor, tolerance: float) -> float:
    return min(tolerance, CLOSER * distance(target, expected))
