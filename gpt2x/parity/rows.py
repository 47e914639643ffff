"""The rows of parity.csv, causes.csv, side_by_side.csv and summary.csv. Importing it never imports torch."""

from dataclasses import dataclass

from gpt2x.parity.checks import Check, Mode, Verdict


@dataclass(frozen=True)
class ParityRow:
    """parity.csv: one row per comparison."""

    stage: str
    site: str
    """The tensor, module, text or prompt that is compared; tensors and modules by Hugging Face's names."""
    mode: str
    """How it is compared: isolated or propagated, the dtype, encode or decode, greedy."""
    metric: str
    value: float | None
    tolerance: float | None
    """Empty if the value is informational: no tolerance applies."""
    status: str
    """ok | mismatch | missing | unexpected | shape_mismatch | nonfinite | skipped."""
    note: str


@dataclass(frozen=True)
class CauseRow:
    """causes.csv: one row per cause; none if the subject is right."""

    order: int
    """From 1: causes in modules in the reference's order of execution, then between modules, then at the logits."""
    sites: str
    """Where it holds, joined by commas: `h.*.mlp.act` for all layers, `h.0.attn` or `h.2..4.attn` for some; `input of`
    a module that receives wrong values; the name of a wrong tensor; `stage: site` outside the modules."""
    cause: str
    """The mistake; numbers, if it is unknown."""
    known: bool
    stage: str
    """With mode, metric, value and tolerance: the check, as in parity.csv, that shows it at the first of the sites."""
    mode: str
    metric: str
    value: float | None
    tolerance: float | None
    difference_before: float | None
    """The largest difference between the logits of the subject and of gpt2x's own model in which all causes above are
    made (a module of unknown cause is replaced in the subject instead), divided by the largest logit. It is infinite
    if only one of them has NaN."""
    difference_after: float | None
    """The same with this cause made as well: it vanishes with the last cause. Empty if it cannot be computed."""
    file: str = ""
    """With line: where the subject's code makes the mistake, if the task proposes a change there; otherwise empty."""
    line: int | None = None


@dataclass(frozen=True)
class SideBySideRow:
    """side_by_side.csv: one row per prompt, which both models continue greedily."""

    prompt: str
    subject_text: str
    reference_text: str
    matched: int
    """Number of equal new tokens before the first difference."""
    first_difference: int | None
    """Its position among the new tokens."""
    top2_margin: float | None
    """The difference between the reference's two largest logits at that position."""
    verdict: Verdict
    """same | tie | different."""


@dataclass(frozen=True)
class SummaryRow:
    """summary.csv: one row per run."""

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
    """The first wrong module, `input of` a module that receives wrong values, or `stage: site`."""
    probable_cause: str
    """The mistake that reproduces it, or 'unknown'."""
    max_abs_logit_difference: float | None
    """In the dtype asked for, as are the next two."""
    mean_kl: float | None
    """KL(reference || subject) of the next-token distributions, mean over the positions, in nats."""
    top1_agreement: float | None
    generations_matched: int
    generations_total: int
    relative_difference: float | None
    """Is it the same function? Largest difference of the logits in float64, divided by the reference's largest."""
    error_ratio: float | None
    """Is it as accurate? RMS error of the logits in the dtype asked for, divided by the reference's own."""


def parity_row(check: Check) -> ParityRow:
    return ParityRow(
        check.stage,
        check.site,
        mode_text(check),
        check.metric or "",
        check.value,
        check.tolerance,
        check.status,
        check.text,
    )


def mode_text(check: Check) -> str:
    """The column `mode`: `isolated`, `float32`, `isolated, float32` or `float64, centred`."""
    if check.mode is Mode.CENTRED:
        return f"{check.dtype}, {check.mode}"
    return ", ".join(part for part in (check.mode, check.dtype) if part)
