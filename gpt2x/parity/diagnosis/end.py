"""Why the logits are wrong though every module, and what every module receives, is right."""

from torch import Tensor

from gpt2x.checkpoints.names import dtype_name
from gpt2x.parity.checks import Cause
from gpt2x.parity.comparison import Compared, Comparison
from gpt2x.parity.diagnosis.trial import CLOSER, best_match, factor_between
from gpt2x.parity.diagnosis.wiring import rewired_logits
from gpt2x.parity.measures import ROUNDED, relative_difference, rounded


def cause_at_the_end(c: Comparison) -> Cause:
    expected = c.record.logits  # [T, V]
    actual = c.exact.logits(c.ids(c.exact))[0].cpu()
    if relative_difference(actual, expected) <= c.tolerance:
        return Cause("the prompt's logits agree", known=False)
    return change_at_the_end(c, actual, expected) or best_match(c, rewired_logits(c), actual, expected)


def change_at_the_end(c: Compared, actual: Tensor, expected: Tensor) -> Cause | None:
    """What makes the logits [T, V] of the reference's, `expected`; None if it is none of the changes known."""
    off = actual - expected
    within = min(c.tolerance, CLOSER * relative_difference(actual, expected))
    largest = within * expected.abs().max()
    if (off - off[:, :1]).abs().max() <= largest:
        return Cause("a constant is added at each position, which softmax does not see")
    factor = factor_between(actual, expected)
    if relative_difference(actual, factor * expected) <= within:
        return Cause(f"logits scaled by {factor:.12g}")
    if len(off) > 1 and (off - off[:1]).abs().max() <= largest:
        return Cause("a bias is added to the logits")
    if relative_difference(actual, expected.softmax(-1)) <= within:
        return Cause("probabilities instead of logits: a softmax at the end")
    for half in ROUNDED:
        if relative_difference(actual, rounded(expected, half)) <= within:
            return Cause(f"logits rounded to {dtype_name(half)}")
    return None
