"""The stage gradients: the gradient of the batch's loss by parameter."""

import math

from gpt2x.config.tasks.validate import Stage
from gpt2x.parity.checks import Check, Metric, Status, checked, incomparable, skipped
from gpt2x.parity.comparison import Comparison
from gpt2x.parity.measures import relative_difference
from gpt2x.parity.stages.stage import Need, ParityStage, StageResult
from gpt2x.parity.subject.examined import Gradient

_METRIC = Metric.RELATIVE_DIFFERENCE


def _compare(c: Comparison) -> StageResult:
    found = c.exact.gradients(c.record.facts.ids)
    if found is None:
        return StageResult([skipped(Stage.GRADIENTS, "the subject's forward pass keeps no gradients")])
    return StageResult([_gradient(c, name, found.get(name)) for name in c.record.gradients])


def _gradient(c: Comparison, name: str, actual: Gradient | None) -> Check:
    """Evenly spaced entries, relative to the largest of them; or the norm of all entries, if that differs more."""
    if actual is None:
        return incomparable(Stage.GRADIENTS, name, _METRIC, Status.MISSING, "no gradient reaches it")
    if actual.shape != c.record.shapes[name]:
        note = f"subject {list(actual.shape)}"
        return incomparable(Stage.GRADIENTS, name, _METRIC, Status.SHAPE_MISMATCH, note)
    norm = c.record.facts.gradient_norms[name]
    if not math.isfinite(norm):
        return skipped(Stage.GRADIENTS, "the reference's own gradient is not finite", name)
    by_norm = abs(actual.norm - norm) / (norm or 1.0)
    value = max(relative_difference(actual.entries, c.record.gradients[name]), by_norm)
    return checked(Stage.GRADIENTS, name, _METRIC, value, c.tolerance)


GRADIENTS = ParityStage(
    Stage.GRADIENTS,
    _compare,
    (
        Need(lambda c: bool(c.record.gradients) or not c.live, "gradients in float64 do not fit in memory"),
        Need(lambda c: bool(c.record.gradients), "the saved reference has none"),
    ),
    asks_oracle=True,
)
