"""Numbers that tell two tensors, two distributions or two lists apart, and the tolerances for them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Largest difference between two correct implementations in one dtype, relative to the largest reference
# value. Measured on GPT-2 124M (random weights, two CPU cores) against transformers 5.23: float64 3e-15,
# float32 9e-7, float16 2e-3, bfloat16 1.4e-2. Classic mistakes make 5e-5 and more (design.md, section 5).
# So only the tolerance for float64 separates all of them from rounding; the others are used if float64 does
# not fit in memory.
RELATIVE_TOLERANCE = {
    torch.float64: 1e-9,
    torch.float32: 1e-5,
    torch.float16: 1e-2,
    torch.bfloat16: 5e-2,
}
# The subject's error divided by the reference's own, in the dtype asked for (design.md, section 5).
ERROR_RATIO = 4.0
# No subject has to be more exact than one rounding of each value, which makes an RMS error of about this many
# units of the machine epsilon (uniform within half a unit in the last place, mantissas spread evenly).
_ROUNDING = 0.2
# The dtypes to which a tensor may have been rounded.
ROUNDED = (torch.float16, torch.bfloat16, torch.float32)
KL_ROUNDING = 1e-12  # rounding error of a KL over 50,257 tokens in float64, in nats


@dataclass(frozen=True)
class LogitDifference:
    """How far the subject's logits are from the reference's, over all positions."""

    max_abs: float
    mean_abs: float
    relative: float
    """The largest absolute difference, divided by the largest absolute logit of the reference."""
    mean_kl: float
    """Mean over the positions of KL(reference || subject), in nats."""
    top1_agreement: float
    """Share of the positions at which both models have the same likeliest token."""
    largest_lost_margin: float
    """The largest lead, in the reference's logits, of its likeliest token over the subject's likeliest token."""


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
    """Logits [T, V] minus each position's mean, which does not change their softmax."""
    return logits - logits.mean(-1, keepdim=True)


def relative_difference(actual: Tensor, expected: Tensor) -> float:
    """The largest difference divided by the largest expected value (absolute values); NaN if any value is NaN."""
    actual, expected = actual.cpu().double(), expected.cpu().double()
    difference, scale = (actual - expected).abs().max().item(), expected.abs().max().item()
    return difference if difference == 0 or scale == 0 else difference / scale


def rms(tensor: Tensor) -> float:
    return tensor.cpu().double().square().mean().sqrt().item()


def error_ratio(error: float, reference_error: float, scale: float, dtype: torch.dtype) -> float:
    """RMS error of the subject divided by that of the reference; both in `dtype`, on values of the RMS `scale`."""
    floor = _ROUNDING * torch.finfo(dtype).eps * scale
    return error / max(reference_error, floor) if error else 0.0


def rounded(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor after a conversion to `dtype` and back to its own dtype."""
    return tensor.to(dtype).to(tensor.dtype)


def aligned(actual: Tensor, expected: Tensor) -> Tensor | None:
    """A tensor of the subject in the reference's shape; None if it has another number of elements."""
    return actual.reshape(expected.shape) if actual.numel() == expected.numel() else None


def first_difference(a: list[Any], b: list[Any]) -> int | None:
    """Index of the first element that differs or is missing in one of the lists; None if the lists are equal."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return None if len(a) == len(b) else min(len(a), len(b))
