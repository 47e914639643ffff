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

_SITE = "lm_head"


@torch.no_grad()
def _compare(c: Comparison) -> StageResult:
    """The prompt's logits in the exact dtype, as they are and centred; then in the dtype asked for."""
    expected = c.record.logits.double()
    actual = c.exact.logits(c.ids(c.exact))[0].cpu().double()
    checks = _same_function(c, actual, expected)
    moved = _same_function(c, centred(actual), centred(expected), Mode.CENTRED)
    if any(check.bad for check in checks) and not any(check.bad for check in moved):
        note = "only a constant is added at each position, which softmax does not see"
        checks[0] = replace(checks[0], note=note)
    return StageResult([*checks, *moved, *_as_accurate(c, expected)])


def _same_function(c: Comparison, actual: Tensor, expected: Tensor, mode: Mode | None = None) -> list[Check]:
    difference = compare_logits(actual, expected)
    largest = c.tolerance * expected.abs().max().item()
    # Logits that move by at most t move the distribution by a KL of at most t^2 / 2 (Hoeffding's lemma).
    largest_kl = max(largest**2 / 2, KL_ROUNDING)
    dtype = c.record.facts.exact
    checks = [
        checked(Stage.LOGITS, _SITE, metric, value, tolerance, mode=mode, dtype=dtype)
        for metric, value, tolerance in (
            (Metric.MAX_ABS_DIFFERENCE, difference.max_abs, largest),
            (Metric.MEAN_ABS_DIFFERENCE, difference.mean_abs, largest),
            (Metric.RELATIVE_DIFFERENCE, difference.relative, c.tolerance),
            (Metric.MEAN_KL, difference.mean_kl, largest_kl),
        )
    ]
    agreement, margin = difference.top1_agreement, difference.largest_lost_margin
    # Two logits may change places only if neither moved by more than the tolerance: then they are a tie.
    status = Status.OK if margin <= 2 * largest else Status.MISMATCH
    note = "" if agreement == 1 else f"largest margin lost {margin:.3g}"
    return [*checks, Check(Stage.LOGITS, status, _SITE, Metric.TOP1_AGREEMENT, mode, dtype, agreement, 1, note)]


def _as_accurate(c: Comparison, expected: Tensor) -> list[Check]:
    if c.subject is c.exact:
        why = "float64 is what errors are measured by" if c.record.exact == torch.float64 else "float64 does not fit"
        return [skipped(Stage.LOGITS, why, _SITE, metric=Metric.ERROR_RATIO, dtype=c.dtype)]
    if not is_finite(c.record.logits_in_dtype):
        why = f"the reference itself is not finite in {c.record.facts.dtype}"
        return [skipped(Stage.LOGITS, why, _SITE, metric=Metric.ERROR_RATIO, dtype=c.dtype)]
    actual = c.subject.logits(c.ids(c.subject))[0].cpu().double()
    difference = compare_logits(actual, c.record.logits_in_dtype)
    checks = [
        informational(Stage.LOGITS, _SITE, metric, value, dtype=c.dtype)
        for metric, value in (
            (Metric.MAX_ABS_DIFFERENCE, difference.max_abs),
            (Metric.MEAN_ABS_DIFFERENCE, difference.mean_abs),
            (Metric.RELATIVE_DIFFERENCE, difference.relative),
            (Metric.MEAN_KL, difference.mean_kl),
            (Metric.TOP1_AGREEMENT, difference.top1_agreement),
        )
    ]
    error, theirs = rms(actual - expected), rms(c.record.logits_in_dtype - expected)
    ratio = error_ratio(error, theirs, rms(expected), c.record.dtype)
    note = f"RMS {error:.3g} over {theirs:.3g}"
    if c.dtype == "int8":
        note += " of float32; informational: no tolerance applies, as int8 is meant to be less accurate"
        return [*checks, informational(Stage.LOGITS, _SITE, Metric.ERROR_RATIO, ratio, note, dtype=c.dtype)]
    return [*checks, checked(Stage.LOGITS, _SITE, Metric.ERROR_RATIO, ratio, ERROR_RATIO, note, dtype=c.dtype)]


LOGITS = ParityStage(Stage.LOGITS, _compare)
