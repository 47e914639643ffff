"""A check: the result of one comparison, with its cause where a stage finds it. Importing it never imports torch."""

import math
from dataclasses import dataclass
from enum import StrEnum

from gpt2x.config.tasks.validate import Stage
from gpt2x.parity.causes import Cause


class Mode(StrEnum):
    """How a site is compared."""

    ISOLATED = "isolated"
    """A module on the reference's input."""
    PROPAGATED = "propagated"
    """A module on what the subject itself feeds it."""
    INPUT = "input"
    """What the subject feeds to a module."""
    CENTRED = "centred"
    """Logits after each position's mean is subtracted."""
    ENCODE = "encode"
    DECODE = "decode"
    GREEDY = "greedy"


class Metric(StrEnum):
    """What the value of a check measures."""

    PARAMETER_DIFFERENCE = "parameter_difference"
    NOT_FINITE = "not_finite"
    DIFFERENCE_OF_TWO_RUNS = "difference_of_two_runs"
    CHANGED = "changed"
    DIFFERING_IDS = "differing_ids"
    DIFFERING_TEXTS = "differing_texts"
    MAX_ABS_DIFFERENCE = "max_abs_difference"
    MEAN_ABS_DIFFERENCE = "mean_abs_difference"
    RELATIVE_DIFFERENCE = "relative_difference"
    MEAN_KL = "mean_kl"
    TOP1_AGREEMENT = "top1_agreement"
    ERROR_RATIO = "error_ratio"
    DIFFERING_SUPPORT = "differing_support"
    TOTAL_VARIATION = "total_variation"
    P_VALUE = "p_value"
    TOKENS_BEFORE_FIRST_DIFFERENCE = "tokens_before_first_difference"
    RAISES = "raises"
    """The subject's own code raised an exception, which ended the comparison."""


class Status(StrEnum):
    """The outcome of a check."""

    OK = "ok"
    MISMATCH = "mismatch"
    MISSING = "missing"
    UNEXPECTED = "unexpected"
    SHAPE_MISMATCH = "shape_mismatch"
    NONFINITE = "nonfinite"
    SKIPPED = "skipped"


class Verdict(StrEnum):
    """How two greedy continuations of one prompt compare."""

    SAME = "same"
    TIE = "tie"
    """They differ, at a margin so small that permitted rounding can decide it."""
    DIFFERENT = "different"


@dataclass(frozen=True)
class Check:
    """One comparison; one row of parity.csv."""

    stage: Stage
    status: Status
    site: str = ""
    """The tensor, module, text or prompt that is compared; tensors and modules by Hugging Face's names."""
    metric: Metric | None = None
    """None if the whole site, or the whole stage, is skipped."""
    mode: Mode | None = None
    dtype: str = ""
    """The dtype that the subject computes in, in checks that exist per dtype."""
    value: float | None = None
    tolerance: float | None = None
    """None if the value is informational."""
    note: str = ""
    cause: Cause | None = None
    """Why the values differ, where the stage itself finds out."""

    @property
    def bad(self) -> bool:
        """Neither ok nor skipped."""
        return self.status not in (Status.OK, Status.SKIPPED)

    @property
    def text(self) -> str:
        """The note, or else the cause."""
        return self.note or (str(self.cause) if self.cause else "")


def judge(value: float, tolerance: float) -> Status:
    """ok if the value is at most the tolerance, else mismatch; nonfinite if it is NaN or infinite."""
    if not math.isfinite(value):
        return Status.NONFINITE
    return Status.OK if value <= tolerance else Status.MISMATCH


def checked(
    stage: Stage,
    site: str,
    metric: Metric,
    value: float,
    tolerance: float,
    note: str = "",
    mode: Mode | None = None,
    dtype: str = "",
    cause: Cause | None = None,
) -> Check:
    """A check that is ok if the value is at most the tolerance."""
    return Check(stage, judge(value, tolerance), site, metric, mode, dtype, value, tolerance, note, cause)


def informational(
    stage: Stage,
    site: str,
    metric: Metric,
    value: float,
    note: str = "",
    mode: Mode | None = None,
    dtype: str = "",
) -> Check:
    """A check without a tolerance, which is bad only if the value is not finite."""
    return Check(stage, judge(value, math.inf), site, metric, mode, dtype, value, None, note)


def skipped(
    stage: Stage, why: str, site: str = "", mode: Mode | None = None, metric: Metric | None = None, dtype: str = ""
) -> Check:
    """A check that could not be made."""
    return Check(stage, Status.SKIPPED, site, metric, mode, dtype, note=why)


def incomparable(stage: Stage, site: str, metric: Metric, status: Status, note: str, mode: Mode | None = None) -> Check:
    """A bad check without a value: missing, unexpected, shape_mismatch, or a mismatch that has no number."""
    return Check(stage, status, site, metric, mode, note=note)
