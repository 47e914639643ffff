"""Numbers that tell two tensors, two distributions or two lists apart, and the bars they are held to."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Largest difference between two correct implementations in one dtype, relative to the largest reference
# value. Measured on GPT-2 124M (random weights, two CPU cores) against transformers 5.23: float64 3e-15,
# float32 9e-7, float16 2e-3, bfloat16 1.4e-2. Classic mistakes make 5e-5 and more (design.md, section 5),
# so only float64's tells all of them from rounding; the others stand in where float64 does not fit.
RELATIVE_TOLERANCE = {
    torch.float64: 1e-9,
    torch.float32: 1e-5,
    torch.float16: 1e-2,
    torch.bfloat16: 5e-2,
}
# The subject's error over the reference's own, in the dtype asked for (design.md, section 5).
ERROR_RATIO = 4.0
# Nobody is asked to be more exact than one rounding of each value, which makes an RMS error of about this
# many units of the machine epsilon (uniform within half a unit in the last place, mantissas spread evenly).
_ROUNDING = 0.2
# What a tensor may have been rounded to on the way.
ROUNDED = (torch.float16, torch.bfloat16, torch.float32)
KL_ROUNDING = 1e-12  # of a KL over 50,257 tokens in float64; nats


@dataclass(frozen=True)
class LogitDifference:
    """How far the subject's logits are from the reference's, over all positions."""

    max_abs: float
    mean_abs: float
    relative: float
    """The largest, over the largest logit of the reference."""
    mean_kl: float
    """Mean over positions of KL(reference || subject), nats."""
    top1_agreement: float
    """Share of positions with the same likeliest token."""
    largest_lost_margin: float
    """Where the likeliest tokens differ: the reference's largest lead of its own over the subject's."""


def compare_logits(subject: Tensor, reference: Tensor) -> LogitDifference:
    """Compares logits [T, V] in float64."""
    subject, reference = subject.cpu().double(), reference.cpu().double()  # MPS has no float64
    difference = (subject - reference).abs()
    log_p, log_q = reference.log_softmax(-1), subject.log_softmax(-1)
    kl = (log_p.exp() * (log_p - log_q)).sum(-1)  # [T]
    top_subject, top_reference = subject.argmax(-1), reference.argmax(-1)  # [T]
    lead = reference.gather(-1, top_reference[:, None]) - reference.gather(-1, top_subject[:, None])  # [T, 1]
    return LogitDifference(
        max_abs=difference.max().item(),
        mean_abs=difference.mean().item(),
        relative=relative_difference(subject, reference),
        mean_kl=kl.mean().clamp(min=0).item(),  # rounding can make a KL of 0 negative
        top1_agreement=(top_subject == top_reference).double().mean().item(),
        largest_lost_margin=lead.max().item(),
    )


def centred(logits: Tensor) -> Tensor:
    """Logits [T, V] less each position's mean: softmax does not see what is taken away."""
    return logits - logits.mean(-1, keepdim=True)


def relative_difference(actual: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest expected value; NaN if anything is not a number."""
    actual, expected = actual.cpu().double(), expected.cpu().double()
    difference, scale = (actual - expected).abs().max().item(), expected.abs().max().item()
    return difference if difference == 0 or scale == 0 else difference / scale


def rms(tensor: Tensor) -> float:
    return tensor.cpu().double().square().mean().sqrt().item()


def error_ratio(error: float, reference_error: float, scale: float, dtype: torch.dtype) -> float:
    """RMS error of the subject over that of the reference; both in `dtype`, on values of the RMS `scale`."""
    floor = _ROUNDING * torch.finfo(dtype).eps * scale
    return error / max(reference_error, floor) if error else 0.0


def rounded(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The values that are left after a stay in `dtype`, in the tensor's own dtype."""
    return tensor.to(dtype).to(tensor.dtype)


def status(value: float, tolerance: float) -> str:
    """ok, mismatch, or nonfinite."""
    if not math.isfinite(value):
        return "nonfinite"
    return "ok" if value <= tolerance else "mismatch"


def first_difference(a: list[Any], b: list[Any]) -> int | None:
    """Index of the first differing element, a missing one included; None if the lists are equal."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return None if len(a) == len(b) else min(len(a), len(b))
