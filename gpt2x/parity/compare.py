"""Numbers that tell two tensors, or two distributions, apart."""

from dataclasses import dataclass

import torch
from torch import Tensor

# Largest difference between two correct implementations in one dtype, relative to the largest reference
# value. Measured on GPT-2 124M (random weights, two CPU cores) against transformers 5.23: float64 3e-15,
# float32 9e-7, float16 2e-3, bfloat16 1.4e-2. Classic mistakes make 5e-5 and more (design.md, section 5).
RELATIVE_TOLERANCE = {
    torch.float64: 1e-9,
    torch.float32: 1e-5,
    torch.float16: 1e-2,
    torch.bfloat16: 5e-2,
}


@dataclass(frozen=True)
class LogitDifference:
    """How far the subject's logits are from the reference's, over all positions."""

    max_abs: float
    mean_abs: float
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
        mean_kl=kl.mean().clamp(min=0).item(),  # rounding can make a KL of 0 negative
        top1_agreement=(top_subject == top_reference).double().mean().item(),
        largest_lost_margin=lead.max().item(),
    )


def first_difference(a: list[int], b: list[int]) -> int | None:
    """Index of the first differing element, a missing one included; None if the lists are equal."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return None if len(a) == len(b) else min(len(a), len(b))
