"""Compares what a reader found with the source of the conversion."""

from dataclasses import dataclass, field
from importlib.metadata import version

from torch import Tensor

from gpt2x import __version__
from gpt2x.checkpoints.exporting import Exporter
from gpt2x.checkpoints.names import to_file
from gpt2x.parity.conversion.probe import Probe, Reader, Reading, logits_of
from gpt2x.parity.conversion.rows import Found, ReaderRow, TensorRow, Verdict
from gpt2x.parity.conversion.tensors import compare_tensors
from gpt2x.parity.measures import LogitDifference, compare_logits, relative_difference

_FOUND = (Found.EQUAL, Found.ROUNDED)


@dataclass
class Comparison:
    """The comparisons of one conversion."""

    probe: Probe
    exporter: Exporter
    dtype: str
    logits: Tensor
    """The logits of the source, [N, V]."""
    tensors: list[TensorRow] = field(default_factory=list)
    """The rows of all readers so far."""
    by_file: Tensor | None = None
    """The logits that gpt2x computes with the tensors of the file, once a reader has found them to be right.

    They judge the logits of all readers, as rounding to the dtype of the file is no error.
    """

    def row(self, reader: Reader, reading: Reading | str) -> ReaderRow:
        """The row of a reader, from what it found, or the error with which it failed."""
        about = (reader.name, version(reader.package) if reader.independent else __version__, reader.independent)
        if isinstance(reading, str):
            return ReaderRow(*about, Verdict.FAIL, note=reading)
        tensors = self._compare_tensors(reader.name, reading)
        counts = {found: sum(row.found is found for row in tensors) for found in Found}
        if self.by_file is None and reading.tensors and all(row.found in _FOUND for row in tensors):
            self.by_file = logits_of(reading.tensors, self.probe) if counts[Found.ROUNDED] else self.logits
        tolerance = reader.tolerance(self.dtype, self.probe.dtype)
        difference, relative = self._compare_logits(reading)
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
            *about,
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

    def _compare_logits(self, reading: Reading) -> tuple[LogitDifference | None, float | None]:
        """The difference from the source, and the relative difference from the logits that judge."""
        if reading.logits is None:
            return None, None
        source, judge = self.logits, self.by_file
        if reading.are_logprobs:
            source = source.log_softmax(-1)
            judge = judge.log_softmax(-1) if judge is not None else None
        relative = relative_difference(reading.logits, judge) if judge is not None else None
        return compare_logits(reading.logits, source), relative
