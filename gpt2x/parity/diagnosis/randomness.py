"""Why two runs of the subject on the same input differ."""

from dataclasses import replace

from gpt2x.config.tasks.validate import Stage
from gpt2x.parity.causes import Cause, Kind
from gpt2x.parity.checks import Check, Metric, Mode, Status
from gpt2x.parity.diagnosis.repaired import RepairedSubject
from gpt2x.parity.diagnosis.result import Divergence
from gpt2x.parity.diagnosis.trial import distance
from gpt2x.parity.measures import aligned, relative_difference
from gpt2x.parity.stages.layers import output_check
from gpt2x.parity.subject import SubjectError

_TWO_RUNS = Metric.DIFFERENCE_OF_TWO_RUNS


def may_be_random(checks: list[Check]) -> bool:
    """Whether the stage config found two runs to differ, or could not find out, as logits are not finite."""
    return any(check.bad and check.metric in (_TWO_RUNS, Metric.NOT_FINITE) for check in checks)


def explain_randomness(
    subject: RepairedSubject, checks: list[Check]
) -> tuple[Divergence | None, RepairedSubject | None]:
    """The first module that is random, and why; and the subject without dropout, if it is not random then.

    Nothing and the subject itself if it is not random.
    """
    first_random = _first_random(subject)
    if first_random is None:
        return None, subject
    site, check = first_random
    known = next((check.cause for check in checks if check.metric is _TWO_RUNS and check.cause is not None), None)
    if known is not None:
        return Divergence(site, check, known), None
    without = replace(subject, dropout=False)
    try:
        first, again = without.logits(), replace(without, seed=1).logits()
    except SubjectError:
        return Divergence(site, check, Cause("random in eval mode: two runs on the same input differ")), None
    c = subject.c
    if distance(again, first) > c.tolerance:
        text = "random in eval mode: two runs on the same input differ, and not only by dropout"
        return Divergence(site, check, Cause(text)), None
    text = "dropout active in eval mode"
    if relative_difference(first, c.record.logits) <= c.tolerance:
        text += ": without it the subject equals the reference"
    return Divergence(site, check, Cause(text, kind=Kind.DROPOUT), random=True), without


def _first_random(subject: RepairedSubject) -> tuple[str, Check] | None:
    """Site, and the check that shows it; None if two runs give the same."""
    c, other = subject.c, replace(subject, seed=1)
    first, again = subject.isolated(), other.isolated()
    for site in c.record.outputs:
        if site in first and distance(again[site], first[site]) > c.tolerance:
            return site, output_check(c, site, Mode.ISOLATED, again[site])
    (seen, logits), (seen_again, logits_again) = subject.trace(), other.trace()
    for site in seen.calls:
        if site in seen.inputs and distance(seen_again.inputs[site], seen.inputs[site]) > c.tolerance:
            actual = aligned(seen_again.inputs[site], c.record.inputs[site])
            value = float("inf") if actual is None else relative_difference(actual, c.record.inputs[site])
            return f"input of {site}", _mismatch(subject, Stage.LAYERS, site, value, Mode.INPUT)
    if distance(logits_again, logits) <= c.tolerance:
        return None
    value = relative_difference(logits_again, c.record.logits)
    return f"{Stage.LOGITS}: lm_head", _mismatch(subject, Stage.LOGITS, "lm_head", value)


def _mismatch(subject: RepairedSubject, stage: Stage, site: str, value: float, mode: Mode | None = None) -> Check:
    metric = Metric.RELATIVE_DIFFERENCE
    return Check(stage, Status.MISMATCH, site, metric, mode, value=value, tolerance=subject.c.tolerance)
