"""Why two runs of the subject on the same input differ."""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from gpt2x.parity.checks import Cause, Check, Metric, Status
from gpt2x.parity.comparison import Comparison
from gpt2x.parity.measures import relative_difference
from gpt2x.parity.subject import SubjectError


def is_random(checks: list[Check]) -> bool:
    return any(_is_of_two_runs(check) and check.status is not Status.OK for check in checks)


def cause_of_randomness(c: Comparison, checks: list[Check]) -> Cause:
    """The cause that the stage config found; else dropout, if the subject is right without it."""
    found = next((check.cause for check in checks if _is_of_two_runs(check) and check.cause is not None), None)
    if found is not None:
        return found
    try:
        with _NoDropout():
            logits = c.exact.logits(c.ids(c.exact))[0].cpu()
    except SubjectError:
        logits = torch.full_like(c.record.logits, torch.nan)
    if relative_difference(logits, c.record.logits) <= c.tolerance:
        return Cause("dropout active in eval mode: without it the subject equals the reference")
    return Cause("random in eval mode: two runs on the same input differ, and not only by dropout")


def _is_of_two_runs(check: Check) -> bool:
    return check.metric is Metric.DIFFERENCE_OF_TWO_RUNS


class _NoDropout(TorchFunctionMode):
    """Inside, torch's dropout functions return their input, whatever mode a module is in."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in ("dropout", "dropout_", "alpha_dropout", "feature_dropout"):
            return args[0] if args else kwargs["input"]
        if func is F.scaled_dot_product_attention:
            return func(*args[:4], **{key: value for key, value in kwargs.items() if key != "dropout_p"})
        return func(*args, **kwargs)
