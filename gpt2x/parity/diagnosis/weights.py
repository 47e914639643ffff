"""What the stage weights knows about a wrong module."""

from gpt2x.config.tasks.validate import Stage
from gpt2x.parity.checks import Cause, Check, Status

_UNMATCHED = (Status.MISSING, Status.UNEXPECTED, Status.SHAPE_MISMATCH)


def explained(checks: list[Check], site: str) -> Cause | None:
    """The cause that is known for the first wrong tensor inside a module."""
    for check in _inside(checks, f"{site}."):
        if check.status is Status.MISMATCH and check.cause is not None:
            return Cause(f"{check.cause}: {check.site}")
    return None


def unmatched(checks: list[Check], prefix: str = "") -> Check | None:
    """The check of the first parameter that only one of the two models has, or has in this shape."""
    return next((check for check in _inside(checks, prefix) if check.status in _UNMATCHED), None)


def different(checks: list[Check], site: str) -> Check | None:
    """The check of the first wrong tensor inside a module."""
    return next((check for check in _inside(checks, f"{site}.") if check.bad), None)


def _inside(checks: list[Check], prefix: str) -> list[Check]:
    return [check for check in checks if check.stage is Stage.WEIGHTS and check.site.startswith(prefix)]
