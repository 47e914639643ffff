"""The stage config: the number of parameters, and whether the subject behaves as a function should."""

from torch import Tensor

from gpt2x.config.tasks.validate import Stage
from gpt2x.parity.causes import Cause
from gpt2x.parity.checks import Check, Metric, Status, checked
from gpt2x.parity.comparison import Comparison
from gpt2x.parity.measures import relative_difference
from gpt2x.parity.stages.stage import ParityStage, StageResult
from gpt2x.parity.stages.weights import head_is_wte
from gpt2x.parity.subject.names import HEAD

_STATEFUL = Cause(
    "it keeps something from one call to the next (a cache that is not reset?): runs with one seed differ"
)


def _compare(c: Comparison) -> StageResult:
    """The parameter count; then whether the logits are finite and repeatable, and the input ids left unchanged."""
    return StageResult([_parameters(c), *_logits(c), _input_ids(c)])


def _parameters(c: Comparison) -> Check:
    """Neither an untied head that equals wte nor parameters that change nothing are counted."""
    ours, theirs = c.subject.parts.n_parameters, c.record.facts.n_parameters
    note = f"subject {ours:,}, reference {theirs:,}" if ours != theirs else f"{ours:,} in both"
    if c.subject.parts.untied_head and head_is_wte(c):
        untied = c.subject.parts.parameters[HEAD].numel()
        ours -= untied
        note += f"; its head is not tied to wte: {untied:,} more parameters, with the same values"
    idle = sum(c.exact.parts.parameters[name].numel() for name in c.idle)
    if idle:
        ours -= idle
        note += f"; {idle:,} of the subject's change nothing"
    return checked(Stage.CONFIG, "model", Metric.PARAMETER_DIFFERENCE, abs(ours - theirs), 0, note)


def _logits(c: Comparison) -> list[Check]:
    first, again, same_seed = (_seeded(c, seed) for seed in (0, 1, 0))
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


def _seeded(c: Comparison, seed: int) -> Tensor:
    c.exact.seed(seed)
    return c.exact.logits(c.ids)


def _input_ids(c: Comparison) -> Check:
    """To be asked after forward passes: it reports what they did."""
    changed = int(c.exact.changes_input)
    note = "it changes the ids that it is given" if changed else ""
    return checked(Stage.CONFIG, "input_ids", Metric.CHANGED, changed, 0, note)


CONFIG = ParityStage(Stage.CONFIG, _compare)
