"""validate(): compares a subject with the reference, stage by stage, and finds the cause of a divergence."""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from gpt2x.checkpoints.load import Checkpoint
from gpt2x.config.tasks.validate import Stage
from gpt2x.device import find_dtype
from gpt2x.errors import UserError
from gpt2x.parity.causes import Cause
from gpt2x.parity.checks import Check, Metric, Status, Verdict, incomparable, skipped
from gpt2x.parity.comparison import Comparison
from gpt2x.parity.diagnosis.diagnose import diagnose
from gpt2x.parity.diagnosis.result import CommonCause, Diagnosis
from gpt2x.parity.measures import RELATIVE_TOLERANCE
from gpt2x.parity.record_source import RecordSource
from gpt2x.parity.reference.record import Record
from gpt2x.parity.rows import CauseRow, SideBySideRow, SummaryRow, mode_text
from gpt2x.parity.source import Source
from gpt2x.parity.stages import STAGES
from gpt2x.parity.stages.stage import ParityStage
from gpt2x.parity.subject import SubjectError
from gpt2x.parity.subject.named import check_named


@dataclass(frozen=True)
class Validation:
    """All that a validation found."""

    subject: str
    """The name of the subject."""
    notes: list[str]
    """What the user should know about how the subject's model was made, one line each."""
    checkpoint: Checkpoint
    dtype: str
    """The dtype asked for."""
    exact: str
    """The dtype in which the subject is compared for the same function: the record's, or that of a recording."""
    stages: list[Stage]
    """The stages that were asked for, in their order."""
    record: Record
    """The reference's answers."""
    n_parameters: int
    """The number of the subject's parameters; 0 for a recording."""
    checks: list[Check]
    side_by_side: list[SideBySideRow]
    diagnosis: Diagnosis | None
    """None if no check is bad."""
    seconds: dict[str, float]
    """Phase (reference, compare, diagnose) -> duration."""
    named_by_structure: list[list[str]] = field(default_factory=list)
    """The rules, as in subject.rename, that were found for names that are not Hugging Face's; empty if none were."""

    @property
    def passed(self) -> bool:
        """No check is bad, and at least one is ok: what was only skipped has not passed."""
        return not any(check.bad for check in self.checks) and any(check.status is Status.OK for check in self.checks)

    @property
    def tolerance(self) -> float:
        """The largest relative difference, in the exact dtype, of the same function."""
        return RELATIVE_TOLERANCE[find_dtype(self.exact)]

    @property
    def first_divergence(self) -> str:
        return self.diagnosis.site if self.diagnosis else ""

    @property
    def probable_cause(self) -> str:
        return str(self.diagnosis.cause) if self.diagnosis else ""

    @property
    def causes(self) -> list[CauseRow]:
        """All causes, in the order in which they were found; empty if no check is bad."""
        found = self.diagnosis.causes if self.diagnosis else []
        return [
            CauseRow(
                order=order,
                sites=", ".join(each.sites),
                cause=each.cause.text,
                known=each.cause.known,
                stage=each.check.stage,
                mode=mode_text(each.check),
                metric=each.check.metric or "",
                value=each.check.value,
                tolerance=each.check.tolerance,
                difference_before=each.difference_before,
                difference_after=each.difference_after,
            )
            for order, each in enumerate(found, 1)
        ]

    def logits(self, dtype: str, metric: Metric) -> float | None:
        """A value that compares the logits as they are (not centred); None if it was not computed."""
        for check in self.checks:
            if (check.stage, check.mode, check.dtype, check.metric) == (Stage.LOGITS, None, dtype, metric):
                return check.value
        return None

    def summary(self) -> SummaryRow:
        in_float64 = self.exact == "float64"
        relative_difference = self.logits(self.exact, Metric.RELATIVE_DIFFERENCE) if in_float64 else None
        return SummaryRow(
            model=self.checkpoint.name,
            weights=self.checkpoint.weights,
            subject=self.subject,
            device=self.checkpoint.model.lm_head.weight.device.type,
            dtype=self.dtype,
            parameters_subject=self.n_parameters,
            parameters_reference=self.record.facts.n_parameters,
            verdict="pass" if self.passed else "fail",
            first_divergence=self.first_divergence,
            probable_cause=self.probable_cause,
            max_abs_logit_difference=self.logits(self.dtype, Metric.MAX_ABS_DIFFERENCE),
            mean_kl=self.logits(self.dtype, Metric.MEAN_KL),
            top1_agreement=self.logits(self.dtype, Metric.TOP1_AGREEMENT),
            generations_matched=sum(texts.verdict is Verdict.SAME for texts in self.side_by_side),
            generations_total=len(self.side_by_side),
            relative_difference=relative_difference,
            error_ratio=self.logits(self.dtype, Metric.ERROR_RATIO),
        )


def validate(
    checkpoint: Checkpoint,
    source: Source,
    reference: RecordSource,
    *,
    dtype: str,
    stages: Collection[Stage] = tuple(Stage),
    progress: Callable[[str], None] = lambda step: None,
) -> Validation:
    """Compares the subject of `source`, in `dtype`, with the reference on the checkpoint's weights.

    `progress` is called with a description when a step begins. Raises UserError if the validation cannot begin, and
    if the subject cannot be built, called or given the reference's weights. If its own code fails later, a check says
    so, and the stages that follow are skipped.
    """
    chosen = [stage for stage in STAGES if stage.name in stages]
    names = [stage.name for stage in chosen]
    seconds: dict[str, float] = {}
    if dtype == "int8" and source.target is not None:
        raise UserError("dtype=int8 is only for gpt2x's own model; leave subject.target out")
    with timed("reference", seconds):
        progress("asking the reference")
        record = reference.get(checkpoint, names, copies=source.copies)
    with timed("compare", seconds):
        comparison = _connected(source, checkpoint, record, dtype, reference.live)
        found = _compare(comparison, chosen, progress)
    diagnosis = None
    if any(check.bad for check in found.checks):
        progress("looking for the cause")
        with timed("diagnose", seconds):
            diagnosis = _diagnose(comparison, found)
        if diagnosis.check not in found.checks:
            found.checks.append(diagnosis.check)
    return Validation(
        subject=source.name,
        notes=[*source.notes, *comparison.exact.notes],
        checkpoint=checkpoint,
        dtype=dtype,
        exact=record.facts.exact,
        stages=names,
        record=record,
        n_parameters=comparison.subject.parts.n_parameters,
        checks=found.checks,
        side_by_side=found.side_by_side,
        diagnosis=diagnosis,
        seconds=seconds,
        named_by_structure=comparison.exact.parts.named_by_structure,
    )


@dataclass
class _Found:
    """What the stages have found so far."""

    checks: list[Check] = field(default_factory=list)
    side_by_side: list[SideBySideRow] = field(default_factory=list)


def _connected(source: Source, checkpoint: Checkpoint, record: Record, dtype: str, live: bool) -> Comparison:
    """The two sides. Raises UserError if the subject cannot be built, called or given the reference's weights."""
    try:
        c = _built(source, checkpoint, record, dtype, live)
        for subject in dict.fromkeys((c.exact, c.subject)):
            subject.logits(c.ids)  # so that it is known whether it answers for all positions
        if source.asked.weights == "copy":
            check_named(c.exact, record.parameters, c.idle)
    except SubjectError as error:
        raise UserError(f"{source.name} could not be compared: {error}") from error
    return c


def _compare(comparison: Comparison, stages: list[ParityStage], progress: Callable[[str], None]) -> _Found:
    """Runs the stages. If the subject's own code raises, a check says so and the comparison ends."""
    found, n_done = _Found(), 0
    try:
        for stage in stages:
            progress(f"comparing {stage.name}")
            for subject in dict.fromkeys((comparison.exact, comparison.subject)):
                subject.seed(0)  # so that one that is random in eval mode gives the same checks every time
            result = stage.run(comparison)
            found.checks += result.checks
            found.side_by_side += result.side_by_side
            n_done += 1
    except SubjectError as error:
        failed, *later = stages[n_done:]
        found.checks.append(incomparable(failed.name, "subject", Metric.RAISES, Status.MISMATCH, str(error)))
        found.checks += [skipped(stage.name, "the subject failed before") for stage in later]
    return found


def _built(source: Source, checkpoint: Checkpoint, record: Record, dtype: str, live: bool) -> Comparison:
    """The subject in the exact dtype, on the CPU, and in the dtype asked for, on the checkpoint's device."""
    device, asked = checkpoint.model.lm_head.weight.device, find_dtype(dtype)
    same = record.exact == asked
    places = [(asked, device)] if same else [(record.exact, torch.device("cpu")), (asked, device)]
    subjects = source.build(checkpoint, record, places)
    return Comparison(record, checkpoint, subjects[0], subjects[-1], dtype, live, ours=source.target is None)


def _diagnose(comparison: Comparison, found: _Found) -> Diagnosis:
    """Explains the first bad check. If the subject failed after other bad checks, these are diagnosed."""
    first = next(check for check in found.checks if check.bad)
    site = f"{first.stage}: {first.site}"
    if first.metric is Metric.RAISES:
        return _single(site, first, Cause(first.note))
    try:
        return diagnose(comparison, [check for check in found.checks if check.metric is not Metric.RAISES])
    except SubjectError as error:
        return _single(site, first, Cause(str(error), known=False))


def _single(site: str, check: Check, cause: Cause) -> Diagnosis:
    return Diagnosis(site, check, cause, [CommonCause([site], cause, check)])


@contextmanager
def timed(phase: str, seconds: dict[str, float]) -> Iterator[None]:
    """Records how long a phase takes."""
    start = time.perf_counter()
    yield
    seconds[phase] = time.perf_counter() - start
