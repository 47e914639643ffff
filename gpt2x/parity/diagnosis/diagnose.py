"""Where the subject diverges from the reference, and why. Causes are found by trial, never by guessing."""

import torch

from gpt2x.config.tasks.validate import Stage
from gpt2x.parity.causes import Cause
from gpt2x.parity.checks import Check, Metric, Mode
from gpt2x.parity.comparison import Comparison
from gpt2x.parity.diagnosis.budget import Budget
from gpt2x.parity.diagnosis.evidence import common_causes
from gpt2x.parity.diagnosis.modules import ModuleSearch
from gpt2x.parity.diagnosis.own import own_model
from gpt2x.parity.diagnosis.randomness import explain_randomness, may_be_random
from gpt2x.parity.diagnosis.repaired import RepairedSubject
from gpt2x.parity.diagnosis.result import CommonCause, Diagnosis, Divergence
from gpt2x.parity.diagnosis.rounding import is_of_rounding, least_accurate
from gpt2x.parity.diagnosis.weights import unmatched, unmatched_cause
from gpt2x.parity.diagnosis.wiring import WiringSearch

_END = "logits: lm_head"
_OUTPUTS = (Stage.LAYERS, Stage.LOGITS, Stage.LOSS, Stage.GENERATION)


@torch.no_grad()
def diagnose(c: Comparison, checks: list[Check]) -> Diagnosis:
    """All that is wrong, given the checks of all stages, at least one of them bad.

    Wrong modules come first; then what reaches modules, for which the diagnosis has new checks; then the logits; then
    what is not part of the model. Raises SubjectError if the subject's own code fails.
    """
    bad = [check for check in checks if check.bad]
    found, causes = _in_model(c, checks) if _is_about_the_model(c, checks, bad) else ([], [])
    if not found:
        is_rounding = all(is_of_rounding(c, check) for check in bad)
        found = [least_accurate(checks, bad) if is_rounding else _stated(_first(bad))]
        causes = [_alone(found[0])]
    causes += [_alone(_stated(check)) for check in _independent(bad) if check is not found[0].check]
    parts = [each.mistake.architecture for each in found if each.mistake is not None and each.mistake.architecture]
    return Diagnosis(found[0].site, found[0].check, found[0].cause_in_full, causes, list(dict.fromkeys(parts)))


def _is_about_the_model(c: Comparison, checks: list[Check], bad: list[Check]) -> bool:
    """Whether the function is wrong, and the stage layers has looked at the modules."""
    if any(_is_of_isolated_module(check) for check in bad):
        return True
    if all(is_of_rounding(c, check) for check in bad):
        return False
    outputs = [check.stage for check in bad if check.stage in _OUTPUTS]
    traced = any(check.stage is Stage.LAYERS for check in checks)
    return traced and bool(outputs) and _first(bad).stage in (Stage.CONFIG, Stage.WEIGHTS, outputs[0])


def _in_model(c: Comparison, checks: list[Check]) -> tuple[list[Divergence], list[CommonCause]]:
    """All divergences in the order in which they are found, and their causes."""
    own = own_model(c)
    subject = whole = RepairedSubject(c, own)
    isolated, found = c.isolated, []
    if may_be_random(checks):
        random, steady = explain_randomness(subject, checks)
        found = [random] if random is not None else []
        if steady is None:
            return found, [_alone(each) for each in found]
        subject, isolated = steady, steady.isolated()
    budget = Budget()
    search = ModuleSearch(c, own, subject, isolated, checks, budget)
    found += search.run()
    if not search.finished:
        return found, [_alone(each) for each in found]
    inside = not any("h." in site for site in isolated)
    found += WiringSearch(c, own, search.subject.replacing(*search.wrong), checks, budget, inside).run()
    found = _with_unmatched(found, checks)
    causes = common_causes(whole, found)
    last = causes[-1].difference_after if causes else None
    if last is not None and last > c.tolerance and all(each.cause.known for each in causes):
        rest = Cause(f"with all of these mistakes gpt2x's own logits are still {last:.3g} away", known=False)
        causes.append(CommonCause([_END], rest, causes[-1].check, last))
    return found, causes


def _with_unmatched(found: list[Divergence], checks: list[Check]) -> list[Divergence]:
    """If what is left is unknown, and no module is wrong, a parameter that only one model has is the cause."""
    alone = unmatched(checks)
    if alone is None or not found or found[0].cause.known or found[0].site in {check.site for check in checks}:
        return found
    return [Divergence(f"{Stage.WEIGHTS}: {alone.site}", alone, unmatched_cause(alone, alone.note)), *found[1:]]


def _first(bad: list[Check]) -> Check:
    """The check that says most about what is wrong."""
    # A parameter count says less than which of the parameters are too few or too many.
    first = next((check for check in bad if check.metric is not Metric.PARAMETER_DIFFERENCE), bad[0])
    if first.stage is Stage.GRADIENTS and bad[-1].stage is Stage.GRADIENTS:
        return bad[-1]  # gradients flow backwards: the last parameter is where the error begins
    return first


def _independent(bad: list[Check]) -> list[Check]:
    """The first check of each kind that no mistake in the function explains."""
    tokenizer = [check for check in bad if check.stage is Stage.TOKENIZER]
    return [*tokenizer[:1], *(check for check in bad if check.metric is Metric.CHANGED)]


def _is_of_isolated_module(check: Check) -> bool:
    return check.stage is Stage.LAYERS and check.mode is Mode.ISOLATED and check.metric is Metric.RELATIVE_DIFFERENCE


def _stated(check: Check) -> Divergence:
    """What the check itself says, or else its numbers."""
    if check.text:
        cause = check.cause or Cause(check.note)
    elif check.value is None or check.tolerance is None:
        cause = Cause("", known=False)
    else:
        cause = Cause(f"{check.value:.3g} against {check.tolerance:.3g}", known=False)
    return Divergence(f"{check.stage}: {check.site}", check, cause)


def _alone(each: Divergence) -> CommonCause:
    return CommonCause([each.place], each.cause, each.check)
