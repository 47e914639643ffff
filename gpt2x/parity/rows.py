"""The rows of parity.csv, side_by_side.csv and summary.csv."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ParityRow:
    """parity.csv: one row a comparison."""

    stage: str
    site: str
    """Tensor, module, text or prompt that is compared, by Hugging Face's name."""
    mode: str
    """How: isolated or propagated, the dtype, encode or decode, greedy."""
    metric: str
    value: float | None
    tolerance: float | None
    """Empty where the value is said, and not judged."""
    status: str
    """ok | mismatch | missing | unexpected | shape_mismatch | nonfinite | skipped."""
    note: str

    @property
    def bad(self) -> bool:
        """Neither ok nor skipped."""
        return self.status not in ("ok", "skipped")


@dataclass(frozen=True)
class SideBySideRow:
    """side_by_side.csv: one row a prompt, continued greedily by both models."""

    prompt: str
    subject_text: str
    reference_text: str
    matched: int
    """New tokens that are the same, before the first difference."""
    first_difference: int | None
    """Position among the new tokens."""
    top2_margin: float | None
    """There, between the reference's two largest logits."""
    verdict: str
    """same | tie | different."""


@dataclass(frozen=True)
class SummaryRow:
    """summary.csv: one row a run."""

    model: str
    weights: str
    subject: str
    device: str
    dtype: str
    parameters_subject: int
    parameters_reference: int
    verdict: str
    """pass | fail."""
    first_divergence: str
    """The first module that is wrong, `input of` one that is given the wrong thing, or `stage: site`."""
    probable_cause: str
    """The mistake that reproduces it, or 'unknown'."""
    max_abs_logit_difference: float | None
    """In the dtype asked for, as are the three below."""
    mean_kl: float | None
    """Of the subject's next-token distribution from the reference's, nats."""
    top1_agreement: float | None
    generations_matched: int
    generations_total: int
    relative_difference: float | None
    """Same function? Of the logits in float64, over the largest of the reference's."""
    error_ratio: float | None
    """As accurate? RMS error of the logits in the dtype asked for, over the reference's own."""
