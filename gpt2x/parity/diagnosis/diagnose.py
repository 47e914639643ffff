"""Where the first divergence is, and why. Causes are found by trying known mistakes, never by guessing."""

import torch

from gpt2x.config.tasks.validate import Stage
from gpt2x.parity.checks import Cause, Check, Metric, Mode, Status
from gpt2x.parity.comparison import Comparison
from gpt2x.parity.diagnosis.end import cause_at_the_end
from gpt2x.parity.diagnosis.module import cause_in_module
from gpt2x.parity.diagnosis.randomness import cause_of_randomness, is_random
from gpt2x.parity.diagnosis.result import Diagnosis
from gpt2x.parity.diagnosis.rounding import is_of_rounding, least_accurate
from gpt2x.parity.diagnosis.weights import unmatched
from gpt2x.parity.diagnosis.wiring import cause_of_wrong_input
from gpt2x.parity.measures import aligned, relative_difference

_OUTPUTS = (Stage.LAYERS, Stage.LOGITS, Stage.LOSS, Stage.GENERATION)


@torch.no_grad()
def diagnose(c: Comparison, checks: list[Check]) -> Diagnosis:
    """What went wrong first, given the checks of all stages, at least one of them bad.

    A guilty module comes first; then what reaches a module, for which the diagnosis has a new check; then the first
    bad check of any stage. Raises SubjectError if the subject's own code fails.
    """
    bad = [check for check in checks if check.bad]
    guilty = next((check for check in bad if _is_of_isolated_module(check)), None)
    if guilty is not None:
        return Diagnosis(guilty.site, guilty, cause_in_module(c, guilty.site, checks))
    if all(is_of_rounding(c, check) for check in bad):
        return least_accurate(checks, bad)
    # A parameter count says less than which of the parameters are too few or too many.
    first = next((check for check in bad if check.metric is not Metric.PARAMETER_DIFFERENCE), bad[0])
    outputs = [check for check in bad if check.stage in _OUTPUTS]
    traced = any(check.stage is Stage.LAYERS for check in checks)
    if outputs and traced and first.stage in (Stage.CONFIG, Stage.WEIGHTS, outputs[0].stage):
        found = _between_modules(c, checks, outputs)
        if found is not None:
            return found
    if first.stage is Stage.GRADIENTS and bad[-1].stage is Stage.GRADIENTS:
        first = bad[-1]  # gradients flow backwards: the last parameter is where the error begins
    return Diagnosis(f"{first.stage}: {first.site}", first, _stated_cause(first))


def _is_of_isolated_module(check: Check) -> bool:
    return check.stage is Stage.LAYERS and check.mode is Mode.ISOLATED and check.metric is Metric.RELATIVE_DIFFERENCE


def _between_modules(c: Comparison, checks: list[Check], outputs: list[Check]) -> Diagnosis | None:
    """No module is wrong in itself: one of them receives wrong values, or the logits are changed at the end."""
    wrong = _first_wrong_input(c)
    if wrong is not None:
        cause = cause_of_randomness(c, checks) if is_random(checks) else cause_of_wrong_input(c, wrong.site)
        found = Diagnosis(f"input of {wrong.site}", wrong, cause)
    elif any(check.stage is Stage.LOGITS for check in outputs):
        found = Diagnosis("logits: lm_head", outputs[0], cause_at_the_end(c))
    else:
        return None
    alone = unmatched(checks)
    if not found.cause.known and alone is not None:
        return Diagnosis(f"{Stage.WEIGHTS}: {alone.site}", alone, Cause(alone.note))
    return found


def _first_wrong_input(c: Comparison) -> Check | None:
    """The first module, in the subject's order, that receives other values than the reference's module does."""
    for site in c.propagated.calls:
        if site in c.record.inputs and site in c.propagated.inputs:
            expected = c.record.inputs[site]
            actual = aligned(c.propagated.inputs[site].cpu(), expected)
            value = float("inf") if actual is None else relative_difference(actual, expected)
            if not value <= c.tolerance:
                metric = Metric.RELATIVE_DIFFERENCE
                return Check(
                    Stage.LAYERS, Status.MISMATCH, site, metric, Mode.INPUT, value=value, tolerance=c.tolerance
                )
    return None


def _stated_cause(check: Check) -> Cause:
    """What the check itself says, or else its numbers."""
    if check.text:
        return check.cause or Cause(check.note)
    if check.value is None or check.tolerance is None:
        return Cause("", known=False)
    return Cause(f"{check.value:.3g} against {check.tolerance:.3g}", known=False)
