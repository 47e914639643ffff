"""Where a recording first diverges, and why."""

from dataclasses import replace

import torch
from torch import Tensor

from gpt2x.config.tasks.validate import Stage
from gpt2x.parity.causes import Cause
from gpt2x.parity.checks import Check, Metric
from gpt2x.parity.diagnosis.end import cause_at_the_end
from gpt2x.parity.diagnosis.own import own_model
from gpt2x.parity.diagnosis.result import CommonCause, Diagnosis
from gpt2x.parity.diagnosis.trial import CLOSER, distance
from gpt2x.parity.measures import relative_difference
from gpt2x.parity.recorded.comparison import RecordedComparison
from gpt2x.parity.recorded.recording import LOGPROBS
from gpt2x.parity.recorded.trials import everywhere, fits, inside, named, rounded_or_scaled
from gpt2x.parity.stages.logits import SITE


@torch.no_grad()
def diagnose_recording(c: RecordedComparison, checks: list[Check]) -> Diagnosis:
    """The first divergence, given the checks of all stages, at least one of them bad, and its cause."""
    first = next(check for check in checks if check.bad)
    if first.stage is Stage.LAYERS and first.site != SITE:
        site, cause = first.site, _cause_at(c, first.site)
    elif first.metric is Metric.ERROR_RATIO:
        ratio = f"the same function, but its rounding error is {first.value:.3g} times the reference's"
        site, cause = f"{Stage.LOGITS}: {first.site}", Cause(ratio)
    else:
        site, cause = f"{Stage.LOGITS}: {first.site}", _cause_of_logits(c)
    return Diagnosis(site, first, cause, [CommonCause([site], cause, first)])


def _cause_at(c: RecordedComparison, site: str) -> Cause:
    """What reproduces the output of a module: a mistake inside it, or one of the whole model."""
    expected = c.record.outputs[site]  # [1, T, width]
    target = c.recording.outputs[site][None]
    return (
        named(c, inside(c, site), target, expected)
        or _of_whole_model(c, site, target, expected)
        or rounded_or_scaled(c, target, expected)
        or _unknown(distance(target, expected))
    )


def _cause_of_logits(c: RecordedComparison) -> Cause:
    actual, expected = c.recording.logits, c.expected
    if not c.recording.are_logprobs and relative_difference(actual, expected.log_softmax(-1)) <= c.tolerance:
        return Cause(f"log-probabilities instead of logits: they are called {LOGPROBS} in a recording")
    return (
        _change_of_logits(c, actual, expected)
        or named(c, (replace(trial, output=trial.function) for trial in everywhere(c, SITE)), actual, expected)
        or rounded_or_scaled(c, actual, expected)
        or _unknown(distance(actual, expected))
    )


def _change_of_logits(c: RecordedComparison, actual: Tensor, expected: Tensor) -> Cause | None:
    within = min(c.tolerance, CLOSER * distance(actual, expected))
    mistake = cause_at_the_end(own_model(c), actual, expected, within)
    return None if mistake is None else mistake.cause


def _of_whole_model(c: RecordedComparison, site: str, target: Tensor, expected: Tensor) -> Cause | None:
    """The mistake of the whole model that fits at the site. If several do, those that also give the recorded logits."""
    fitting = [trial for trial in everywhere(c, site) if fits(c, trial.output, target, expected)]
    by_logits = (replace(trial, output=trial.function) for trial in fitting)
    return named(c, by_logits, c.recording.logits, c.expected) or named(c, fitting, target, expected)


def _unknown(off: float) -> Cause:
    return Cause(
        f"none of the mistakes tried gives this output, which is {off:.3g} of the reference's scale away", known=False
    )
