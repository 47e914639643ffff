"""The stage loss: the mean cross-entropy of one batch, and the loss of each token of a text that fills the context."""

import math

from gpt2x.config.tasks.validate import Stage
from gpt2x.parity.checks import Check, Metric, checked, skipped
from gpt2x.parity.comparison import Comparison
from gpt2x.parity.reference.losses import context_losses, loss_of
from gpt2x.parity.reference.sound import is_finite
from gpt2x.parity.stages.stage import Need, ParityStage, StageResult

_NOT_FINITE = "the reference's own loss is not finite"


def _compare(c: Comparison) -> StageResult:
    return StageResult([_batch(c), _context(c)])


def _batch(c: Comparison) -> Check:
    expected = c.record.facts.loss
    assert expected is not None  # the stage needs it
    if not math.isfinite(expected):
        return skipped(Stage.LOSS, _NOT_FINITE, "batch of 2")
    value = abs(loss_of(c.exact, c.record.facts.ids).item() - expected) / expected
    return checked(Stage.LOSS, "batch of 2", Metric.RELATIVE_DIFFERENCE, value, c.tolerance)


def _context(c: Comparison) -> Check:
    """Positions beyond the prompt's end, which no other stage reaches."""
    expected = c.record.context_losses  # [n]
    n, n_positions = len(expected), c.record.shapes["wpe.weight"][0]
    if not is_finite(expected):
        return skipped(Stage.LOSS, _NOT_FINITE, f"{n} tokens")
    losses = context_losses(c.exact, n)
    by_token = (losses - expected).abs() / expected.abs().max()
    wrong = (~(by_token <= c.tolerance)).nonzero().flatten().tolist()
    note = f"of {n_positions} positions" if n < n_positions else ""
    if wrong:
        note = f"wrong from token {wrong[0]} of {n} on"
    value = by_token.max().item()
    return checked(Stage.LOSS, f"{n} tokens", Metric.RELATIVE_DIFFERENCE, value, c.tolerance, note)


LOSS = ParityStage(
    Stage.LOSS,
    _compare,
    (Need(lambda c: c.record.facts.loss is not None, "the saved reference has none"),),
    asks_oracle=True,
)
