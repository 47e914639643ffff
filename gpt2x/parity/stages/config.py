"""The stage config: the number of parameters, and whether the subject behaves as a function should."""

import torch

from gpt2x.config.tasks.validate import Stage
from gpt2x.parity.checks import Cause, Check, Metric, Status, checked
from gpt2x.parity.comparison import Comparison
from gpt2x.parity.measures import relative_difference
from gpt2x.parity.stages.stage import ParityStage, StageResult
from gpt2x.parity.stages.weights import head_is_wte

_STATEFUL = Cause(
    "it keeps something from one call to the next (a cache that is not reset?): runs with one seed differ"
)


def _compare(c: Comparison) -> StageResult:
    """The parameter count; then whether the logits are finite and repeatable, and the input ids left unchanged."""
    return StageResult([_parameters(c), *_logits(c), _input_ids(c)])


def _parameters(c: Comparison) -> Check:
    """Neither an untied head that equals wte nor parameters that change nothing are counted."""
    ours, theirs, untied = c.subject.n_parameters, c.record.facts.n_parameters, c.subject.untied_head
    note = f"subject {ours:,}, reference {theirs:,}" if ours != theirs else f"{ours:,} in both"
    if untied is not None and head_is_wte(c):
        ours -= untied.numel()
        note += f"; its head is not tied to wte: {untied.numel():,} more parameters, with the same values"
    idle = {id(parameter): parameter.numel() for name in c.idle for parameter in [c.exact.parameters[name]]}
    if idle:
        ours -= sum(idle.values())
        note += f"; {sum(idle.values()):,} of the subject's change nothing"
    return checked(Stage.CONFIG, "model", Metric.PARAMETER_DIFFERENCE, abs(ours - theirs), 0, note)


@torch.no_grad()
def _logits(c: Comparison) -> list[Check]:
    ids = c.ids(c.exact)
    torch.manual_seed(0)
    first = c.exact.logits(ids)
    torch.manual_seed(1)
    again = c.exact.logits(ids)
    torch.manual_seed(0)
    same_seed = c.exact.logits(ids)
    n_bad = int((~first.isfinite()).sum())
    status = Status.NONFINITE if n_bad else Status.OK
    finite = Check(Stage.CONFIG, status, "logits", Metric.NOT_FINITE, value=n_bad, tolerance=0)
    difference = 0.0 if n_bad else relative_difference(again, first)
    note, cause = "", None
    if not n_bad and not relative_difference(same_seed, first) <= c.tolerance:
        cause = _STATEFUL
    elif not difference <= c.tolerance:
        note = "two runs on the same input differ, in eval mode"
    metric = Metric.DIFFERENCE_OF_TWO_RUNS
    return [finite, checked(Stage.CONFIG, "logits", metric, difference, c.tolerance, note, cause=cause)]


def _input_ids(c: Comparison) -> Check:
    """To be asked after forward passes: it reports what they did."""
    changed = int(c.exact.changes_input)
    note = "it changes the ids that it is given" if changed else ""
    return checked(Stage.CONFIG, "input_ids", Metric.CHANGED, changed, 0, note)


CONFIG = ParityStage(Stage.CONFIG, _compare)
