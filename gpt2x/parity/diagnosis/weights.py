"""What the stage weights knows about a wrong module."""

from gpt2x.config.tasks.validate import Stage
from gpt2x.parity.causes import Cause, Kind
from gpt2x.parity.checks import Check, Status
from gpt2x.parity.comparison import Comparison
from gpt2x.parity.subject.names import HEAD_BIAS

_UNMATCHED = (Status.MISSING, Status.UNEXPECTED, Status.SHAPE_MISMATCH)


def wrong_tensors(checks: list[Check], prefix: str = "") -> list[Check]:
    """The checks of tensors that have other values than the reference's."""
    return [check for check in _inside(checks, prefix) if check.status is Status.MISMATCH]


def unmatched(checks: list[Check], prefix: str = "") -> Check | None:
    """The check of the first parameter that only one of the two models has, or has in this shape."""
    return next((check for check in _inside(checks, prefix) if check.status in _UNMATCHED), None)


def unmatched_cause(check: Check, text: str) -> Cause:
    """The cause that such a parameter is: a linear layer without a bias, or a head with one, is a mistake in code."""
    if check.status is Status.MISSING and check.site.endswith(".bias"):
        return Cause(text, kind=Kind.BIAS)
    return Cause(text, kind=Kind.HEAD_BIAS if check.site == HEAD_BIAS else None)


def missing_biases(c: Comparison, checks: list[Check], prefix: str = "") -> list[str]:
    """The biases that layers of the subject certainly do not have: none of its unnamed parameters has their shape."""
    shapes = {c.exact.parts.parameters[name] for name in c.exact.parts.unexpected}
    missing = {check.site for check in _inside(checks, prefix) if check.status is Status.MISSING}
    return [
        name
        for name in sorted(missing)
        if name.endswith(".bias")
        and f"{name.removesuffix('.bias')}.weight" not in missing
        and c.record.parameters[name].shape not in shapes
    ]


def _inside(checks: list[Check], prefix: str) -> list[Check]:
    return [check for check in checks if check.stage is Stage.WEIGHTS and check.site.startswith(prefix)]
