"""Compares what a reader found with the source of the conversion."""

from dataclasses import dataclass, field

from torch import Tensor

from gpt2x.checkpoints.exporting import Exporter
from gpt2x.checkpoints.names import to_file
from gpt2x.parity.conversion.probe import Probe, Reading
from gpt2x.parity.conversion.rows import Found, ReaderRow, TensorRow, Verdict
from gpt2x.parity.conversion.tensors import compare_tensors
from gpt2x.parity.measures import LogitDifference, compare_logits, relative_difference

_FOUND = (Found.EQUAL, Found.ROUNDED)


@dataclass(frozen=True)
class Answer:
    """What a reader found."""

    reader: str
    version: str
    independent: bool
    reading: Reading | str
    """Or why it could not read."""


@dataclass
class Comparison:
    """The comparisons of one conversion."""

    probe: Probe
    exporter: Exporter
    dtype: str
    logits: Tensor
    """The logits of the source, [T, V]."""
    tensors: list[TensorRow] = field(default_factory=list)
    """The rows of all readers so far."""

    def row(self, answer: Answer, judge: Tensor | None, tolerance: float) -> ReaderRow:
        """The row of a reader. `judge` are the logits that its own must equal but for rounding.

        The logits of the source judge only a file whose tensors are all equal to those of the source.
        """
        if isinstance(answer.reading, str):
            return ReaderRow(answer.reader, answer.version, answer.independent, Verdict.FAIL, note=answer.reading)
        reading = answer.reading
        tensors = self._compare_tensors(answer.reader, reading)
        counts = {found: sum(row.found is found for row in tensors) for found in Found}
        if judge is self.logits and counts[Found.ROUNDED]:
            judge = None
        difference, relative = self._compare_logits(reading, judge)
        same = reading.same_ids
        failures = [f"{counts[found]} tensors {found}" for found in Found if found not in _FOUND and counts[found]]
        if relative is not None and not relative <= tolerance:  # not <=: NaN fails, too
            failures.append(f"logits differ by {relative:.2g} of the largest, allowed {tolerance:g}")
        if same is not None and not all(same):
            failures.append(f"{same.count(False)} of {len(same)} texts have other token ids")
        if not reading.same_merges:
            failures.append("the tokenizer has another vocabulary, or other merges")
        errors = [row.max_abs_error for row in tensors if row.max_abs_error is not None]
        return ReaderRow(
            reader=answer.reader,
            version=answer.version,
            independent=answer.independent,
            verdict=Verdict.FAIL if failures else Verdict.PASS,
            tensors=len(tensors) if tensors else None,
            tensors_equal=counts[Found.EQUAL] if tensors else None,
            tensors_rounded=counts[Found.ROUNDED] if tensors else None,
            max_abs_error=max(errors) if errors else None,
            max_abs_logit_difference=difference.max_abs if difference else None,
            mean_kl=difference.mean_kl if difference else None,
            top1_agreement=difference.top1_agreement if difference else None,
            relative_difference=relative,
            tolerance=tolerance if relative is not None else None,
            texts=len(same) if same is not None else None,
            texts_same=sum(same) if same is not None else None,
            note="; ".join(failures) or None,
        )

    def _compare_tensors(self, reader: str, reading: Reading) -> list[TensorRow]:
        if reading.tensors is None:
            return []
        source, exporter = to_file(self.probe.source.model), self.exporter
        rows = compare_tensors(reader, source, reading.tensors, lambda name: exporter.stored_dtype(name, self.dtype))
        self.tensors += (found := list(rows))
        return found

    def _compare_logits(self, reading: Reading, judge: Tensor | None) -> tuple[LogitDifference | None, float | None]:
        """The difference from the source, and the relative difference from the logits that judge."""
        if reading.logits is None:
            return None, None
        source = self.logits
        if reading.are_logprobs:
            source = source.log_softmax(-1)
            judge = judge.log_softmax(-1) if judge is not None else None
        relative = relative_difference(reading.logits, judge) if judge is not None else None
        return compare_logits(reading.logits, source), relative
