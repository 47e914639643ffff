"""Subjects that compute the right function in float64, but not accurately enough in the dtype asked for."""

from gpt2x.config.tasks.validate import Stage
from gpt2x.parity.causes import Cause
from gpt2x.parity.checks import Check, Metric, Status
from gpt2x.parity.comparison import Comparison
from gpt2x.parity.diagnosis.result import Divergence
from gpt2x.parity.measures import ERROR_RATIO


def is_of_rounding(c: Comparison, check: Check) -> bool:
    """Whether a check is about the dtype asked for, and tells nothing about the function in float64."""
    in_dtype = (
        c.subject is not c.exact and check.stage is Stage.LOGITS and check.mode is None and check.dtype == c.dtype
    )
    return in_dtype or check.metric is Metric.ERROR_RATIO or check.stage is Stage.GENERATION


def least_accurate(checks: list[Check], bad: list[Check]) -> Divergence:
    """The first module whose rounding error is too large, given that all bad checks are about rounding."""
    if bad[0].stage is Stage.GENERATION:
        return Divergence(f"{Stage.GENERATION}: {bad[0].site}", bad[0], Cause(bad[0].note))
    ratios = [check for check in checks if check.stage is Stage.LAYERS and check.metric is Metric.ERROR_RATIO]
    for check in ratios:
        if not (check.value or 0.0) <= ERROR_RATIO:
            return Divergence(check.site, check, _cause(check))
    last = next((check for check in bad if check.metric is Metric.ERROR_RATIO), bad[0])
    return Divergence("logits: lm_head", last, _cause(last))


def _cause(check: Check) -> Cause:
    if check.status is Status.NONFINITE:
        return Cause("the same function in float64, but in this dtype it overflows")
    return Cause(f"the same function in float64, but its rounding error is {check.value:.3g} times the reference's")
