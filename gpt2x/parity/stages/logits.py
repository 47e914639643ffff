"""The stage logits: is it the same function, and is it as accurate as it should be in the dtype asked for?"""

from dataclasses import replace

import torch
from torch import Tensor

from gpt2x.config.tasks.validate import Stage
from gpt2x.parity.checks import Check, Metric, Mode, Status, checked, informational, skipped
from gpt2x.parity.comparison import Comparison
from gpt2x.parity.measures import ERROR_RATIO, KL_ROUNDING, centred, compare_logits, error_ratio, rms
from gpt2x.parity.reference.sound import is_finite
from gpt2x.parity.stages.stage import ParityStage, StageResult

SITE = "lm_head"
"""The module whose output the logits are."""


def _compare(c: Comparison) -> StageResult:
    """The prompt's logits in the exact dtype, as they are and centred; then in the dtype asked for."""
    expected = c.record.logits.double()
    actual = c.exact.logits(c.ids)[0].double()
    checks = same_function(actual, expected, c.tolerance, c.record.facts.exact)
    return StageResult([*checks, *_as_accurate(c, expected)])


def same_function(actual: Tensor, expected: Tensor, tolerance: float, dtype: str) -> list[Check]:
    """Logits [T, V] of the subject, computed in `dtype`, against the reference's: as they are, and centred."""
    checks = _differences(actual, expected, tolerance, dtype)
    moved = _differences(centred(actual), centred(expected), tolerance, dtype, Mode.CENTRED)
    if any(check.bad for check in checks) and not any(check.bad for check in moved):
        note = "only a constant is added at each position, which softmax does not see"
        checks[0] = replace(checks[0], note=note)
    return [*checks, *moved]


def _differences(
    actual: Tensor, expected: Tensor, relative: float, dtype: str, mode: Mode | None = None
) -> list[Check]:
    difference = compare_logits(actual, expected)
    largest = relative * expected.abs().max().item()
    # Logits that move by at most t move the distribution by a KL of at most t^2 / 2 (Hoeffding's lemma).
    largest_kl = max(largest**2 / 2, KL_ROUNDING)
    checks = [
        checked(Stage.LOGITS, SITE, metric, value, tolerance, mode=mode, dtype=dtype)
        for metric, value, tolerance in (
            (Metric.MAX_ABS_DIFFERENCE, difference.max_abs, largest),
            (Metric.MEAN_ABS_DIFFERENCE, difference.mean_abs, largest),
            (Metric.RELATIVE_DIFFERENCE, difference.relative, relative),
            (Metric.MEAN_KL, difference.mean_kl, largest_kl),
        )
    ]
    agreement, margin = difference.top1_agreement, difference.largest_lost_margin
    # Two logits may change places only if neither moved by more than the tolerance: then they are a tie.
    status = Status.OK if margin <= 2 * largest else Status.MISMATCH
    note = "" if agreement == 1 else f"largest margin lost {margin:.3g}"
    return [*checks, Check(Stage.LOGITS, status, SITE, Metric.TOP1_AGREEMENT, mode, dtype, agreement, 1, note)]


def _as_accurate(c: Comparison, expected: Tensor) -> list[Check]:
    if c.subject is c.exact:
        why = "float64 is what errors are measured by" if c.record.exact == torch.float64 else "float64 does not fit"
        return [skipped(Stage.LOGITS, why, SITE, metric=Metric.ERROR_RATIO, dtype=c.dtype)]
    if not is_finite(c.record.logits_in_dtype):
        why = f"the reference itself is not finite in {c.record.facts.dtype}"
        return [skipped(Stage.LOGITS, why, SITE, metric=Metric.ERROR_RATIO, dtype=c.dtype)]
    actual = c.subject.logits(c.ids)[0].double()
    difference = compare_logits(actual, c.record.logits_in_dtype)
    checks = [
        informational(Stage.LOGITS, SITE, metric, value, dtype=c.dtype)
        for metric, value in (
            (Metric.MAX_ABS_DIFFERENCE, difference.max_abs),
            (Metric.MEAN_ABS_DIFFERENCE, difference.mean_abs),
            (Metric.RELATIVE_DIFFERENCE, difference.relative),
            (Metric.MEAN_KL, difference.mean_kl),
            (Metric.TOP1_AGREEMENT, difference.top1_agreement),
        )
    ]
    ratio, note = accuracy(actual, expected, c.record.logits_in_dtype, c.record.dtype)
    if c.dtype == "int8":
        note += " of float32; informational: no tolerance applies, as int8 is meant to be less accurate"
        return [*checks, informational(Stage.LOGITS, SITE, Metric.ERROR_RATIO, ratio, note, dtype=c.dtype)]
    return [*checks, checked(Stage.LOGITS, SITE, Metric.ERROR_RATIO, ratio, ERROR_RATIO, note, dtype=c.dtype)]


def accuracy(actual: Tensor, expected: Tensor, in_dtype: Tensor, dtype: torch.dtype) -> tuple[float, str]:
    """The subject's RMS error divided by the reference's own, `in_dtype`, and both of them in words; logits [T, V]."""
    error, theirs = rms(actual - expected), rms(in_dtype - expected)
    return error_ratio(error, theirs, rms(expected), dtype), f"RMS {error:.3g} over {theirs:.3g}"


LOGITS = ParityStage(Stage.LOGITS, _compare)
