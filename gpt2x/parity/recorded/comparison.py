"""A recording beside the reference's record, and what can be compared of them: module outputs and logits."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2x.config.tasks.validate import Stage
from gpt2x.parity.checks import Check, Metric, Mode, checked, skipped
from gpt2x.parity.measures import ERROR_RATIO, RELATIVE_TOLERANCE, relative_difference, rms
from gpt2x.parity.recorded.recording import Recording
from gpt2x.parity.reference.record import Record
from gpt2x.parity.reference.sound import is_finite
from gpt2x.parity.stages.layers import elsewhere
from gpt2x.parity.stages.logits import SITE, accuracy, same_function
from gpt2x.parity.subject.names import whole_site

UNANSWERED = {
    Stage.CONFIG: "a recording has no parameters, and cannot be run again",
    Stage.TOKENIZER: "a recording begins with token ids",
    Stage.WEIGHTS: "a recording holds no weights",
    Stage.LOSS: "a recording cannot be run on another text",
    Stage.GRADIENTS: "a recording holds no gradients",
    Stage.CACHE: "only gpt2x's own model has a KV cache that can be checked",
    Stage.PADDING: "only gpt2x's own model takes padded batches that can be checked",
    Stage.SAMPLING: "only gpt2x's own sampling can be checked; a recording holds no sampled tokens",
    Stage.GENERATION: "a recording cannot be continued",
}
"""Stage -> why a recording does not answer it."""


@dataclass(frozen=True)
class RecordedComparison:
    """A recording and the reference's answers to the same ids."""

    recording: Recording
    record: Record

    @property
    def tolerance(self) -> float:
        """The largest relative difference of the same function: that of the dtype that the recording was made in."""
        return RELATIVE_TOLERANCE[self.record.dtype]

    @property
    def expected(self) -> Tensor:
        """What the reference answers in its exact dtype, [T, V]: logits or log-probabilities, as the recording has."""
        return self.as_recorded(self.record.logits)

    @property
    def rounding(self) -> float:
        """RMS of the reference's rounding error in the dtype of the recording, divided by the RMS of its logits.

        inf if it is not known: the tolerance alone then decides which mistakes fit.
        """
        if self.record.exact == self.record.dtype or not is_finite(self.record.logits_in_dtype):
            return math.inf
        return rms(self.as_recorded(self.record.logits_in_dtype) - self.expected) / rms(self.expected)

    def run(self, stage: Stage) -> list[Check]:
        """The checks of one stage; one skipped check where a recording does not answer it."""
        if stage is Stage.LAYERS:
            return self._layers()
        if stage is Stage.LOGITS:
            return self._logits()
        return [skipped(stage, UNANSWERED[stage])]

    def as_recorded(self, logits: Tensor) -> Tensor:
        return logits.double().log_softmax(-1) if self.recording.are_logprobs else logits.double()

    def _layers(self) -> list[Check]:
        """The recorded outputs, in the reference's order of execution; then how many modules are not recorded."""
        recorded = self.recording.outputs
        checks = [self._output(site) for site in self.record.outputs if site in recorded]
        if relative_difference(self.recording.logits, self.expected) <= self.tolerance:
            checks = [elsewhere(check) for check in checks]
        modules = {whole_site(site)[0] for site in self.record.outputs if "drop" not in site and site != SITE}
        missing = len(modules - {whole_site(site)[0] for site in recorded})
        if missing:
            why = "the recording does not hold their outputs"
            checks.append(skipped(Stage.LAYERS, why, f"{missing} of {len(modules)} modules", Mode.PROPAGATED))
        return checks

    def _output(self, site: str) -> Check:
        value = relative_difference(self.recording.outputs[site], self.record.outputs[site][0])
        metric, dtype = Metric.RELATIVE_DIFFERENCE, self.recording.dtype
        return checked(Stage.LAYERS, site, metric, value, self.tolerance, mode=Mode.PROPAGATED, dtype=dtype)

    def _logits(self) -> list[Check]:
        actual, dtype = self.recording.logits, self.recording.dtype
        return [*same_function(actual, self.expected, self.tolerance, dtype), self._accuracy(actual, dtype)]

    def _accuracy(self, actual: Tensor, dtype: str) -> Check:
        """The recording's error divided by the reference's own in the same dtype."""
        why = None
        if self.record.exact == self.record.dtype:
            why = "float64 is what errors are measured by" if dtype == "float64" else "float64 does not fit"
        elif not is_finite(self.record.logits_in_dtype):
            why = f"the reference itself is not finite in {dtype}"
        if why is not None:
            return skipped(Stage.LOGITS, why, SITE, metric=Metric.ERROR_RATIO, dtype=dtype)
        in_dtype = self.as_recorded(self.record.logits_in_dtype)
        ratio, note = accuracy(actual, self.expected, in_dtype, self.record.dtype)
        return checked(Stage.LOGITS, SITE, Metric.ERROR_RATIO, ratio, ERROR_RATIO, note, dtype=dtype)

    def ids(self) -> Tensor:
        """[1, T]."""
        return torch.tensor([self.recording.ids])
