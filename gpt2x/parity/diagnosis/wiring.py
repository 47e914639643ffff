"""Why modules receive wrong values though no module is wrong: mistakes between modules, made until all is explained."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gpt2x.config.tasks.validate import Stage
from gpt2x.model.gpt2 import GPT2
from gpt2x.parity.causes import Cause
from gpt2x.parity.checks import Check, Metric, Mode, Status
from gpt2x.parity.comparison import Comparison
from gpt2x.parity.diagnosis.budget import Budget
from gpt2x.parity.diagnosis.end import cause_at_the_end
from gpt2x.parity.diagnosis.own import module_at
from gpt2x.parity.diagnosis.repaired import RepairedSubject
from gpt2x.parity.diagnosis.result import Divergence
from gpt2x.parity.diagnosis.trial import distance, is_mostly_nan, matches, pairs_of, unexplained
from gpt2x.parity.measures import aligned, relative_difference
from gpt2x.parity.mistakes.mistake import Mistake, can_be_joined, made
from gpt2x.parity.mistakes.wiring import sinusoids, wiring_mistakes, without_positions
from gpt2x.parity.reference.record import Record
from gpt2x.parity.subject.names import whole_site
from gpt2x.parity.trace import Trace, trace

# Sites that are compared by what they answer: mistakes with positions are made inside wpe, and those with the sum of
# the embeddings inside drop.
_BY_OUTPUT = ("wte", "wpe", "drop")
# A table of sines that was computed in float32 is this close to one in float64, for some thousand positions.
_FLOAT32 = 1e-4


@dataclass
class WiringSearch:
    """Compares what the subject's modules receive with what gpt2x's own receive, in the order of the subject's calls.

    At the first difference mistakes are tried in gpt2x's own model, on top of those found before. If nothing matches,
    the module is given what it should receive. So all differences are found, up to the logits.
    """

    c: Comparison
    own: GPT2
    subject: RepairedSubject
    """With gpt2x's own modules in the place of those that are wrong in themselves."""
    checks: list[Check]
    budget: Budget
    inside: bool
    """Whether mistakes inside blocks are tried as well, because the subject's blocks have not been examined."""
    found: list[Divergence] = field(default_factory=list)
    _done: set[str] = field(default_factory=set)

    def run(self) -> list[Divergence]:
        """All causes between modules, and then at the logits."""
        while True:
            seen, logits = self.subject.trace()
            sites = _outermost(seen.calls)
            expected, expected_logits = self._expected(sites)
            wrong = self._first_wrong(sites, seen, expected)
            if wrong is None:
                break
            self._done.add(wrong.site)
            self._explain_input(wrong, seen, expected)
        if not distance(logits, expected_logits) <= self.c.tolerance:
            self._explain_logits(seen, logits, expected_logits)
        return self.found

    def _first_wrong(self, sites: list[str], seen: Trace, expected: Trace | Record) -> Check | None:
        """The check of the first module that receives other values than it should; those done before are left out."""
        for site in sites:
            if site in seen.inputs and site in expected.inputs and site not in self._done:
                right = expected.inputs[site]
                actual = aligned(seen.inputs[site], right)
                value = float("inf") if actual is None else relative_difference(actual, right)
                same = actual is not None and distance(actual, right) <= self.c.tolerance
                if not (same or self._answers_the_same(site, seen, expected)):
                    return _mismatch(self.c, Stage.LAYERS, site, value, Mode.INPUT)
        return None

    def _answers_the_same(self, site: str, seen: Trace, expected: Trace | Record) -> bool:
        """Whether a site that is compared by its output answers what it should, though it receives something else."""
        if site not in _BY_OUTPUT or site not in seen.outputs:
            return False
        actual = aligned(seen.outputs[site], expected.outputs[site])
        return actual is not None and distance(actual, expected.outputs[site]) <= self.c.tolerance

    def _explain_input(self, check: Check, seen: Trace, expected: Trace | Record) -> None:
        site = check.site
        right = _arriving(expected, site)[site]
        target = aligned(_arriving(seen, site)[site], right)
        place = f"input of {site}"
        if target is None:
            cause = Cause(f"it receives the shape {list(seen.inputs[site].shape)}")
        else:
            whole = whole_site(site)[0]
            mistakes = self._by_trial(seen, target, right, whole)
            if mistakes:
                self.found += [Divergence(place, check, mistake.cause, mistake) for mistake in mistakes]
                return
            cause = unexplained(target, right, self.c.tolerance)
        self.found.append(Divergence(place, check, cause, right_input=expected.inputs[site]))
        self.subject = self.subject.giving(site, expected.inputs[site])

    def _explain_logits(self, seen: Trace, logits: Tensor, expected: Tensor) -> None:
        """Every module is right, and so is what it receives, as far as modules can be seen."""
        bad = [check for check in self.checks if check.bad and check.stage is Stage.LOGITS]
        value = relative_difference(logits, expected)
        check = bad[0] if bad else _mismatch(self.c, Stage.LOGITS, "lm_head", value)
        place = f"{Stage.LOGITS}: lm_head"
        at_the_end = cause_at_the_end(self.own, logits, expected, self.c.tolerance)
        mistakes = [at_the_end] if at_the_end is not None else self._by_trial(seen, logits, expected)
        if mistakes:
            self.found += [Divergence(place, check, mistake.cause, mistake) for mistake in mistakes]
        else:
            self.found.append(Divergence(place, check, unexplained(logits, expected, self.c.tolerance)))

    def _by_trial(self, seen: Trace, target: Tensor, expected: Tensor, site: str | None = None) -> tuple[Mistake, ...]:
        """One wiring mistake or two that give the input of a site, or the logits for None; none if nothing matches."""
        blocks = [call for call in seen.calls if call.startswith("h.") and call.count(".") == 1]
        calls = [int(block.removeprefix("h.")) for block in blocks]
        made_before = self._mistakes()
        mistakes = [
            each
            for each in wiring_mistakes(self.own.transformer, calls, self.inside)
            if all(can_be_joined(each, other) for other in made_before)
        ]
        trials: list[tuple[Mistake, ...]] = [(each,) for each in mistakes]
        fitting = matches(self._outputs(trials, site), target, expected, self.c.tolerance)
        if is_mostly_nan(target):
            fitting = fitting if len({each.cause for each, *_ in fitting}) == 1 else []
        elif not fitting and site and (with_sines := self._with_sinusoids(mistakes, target, site)):
            return with_sines
        elif not fitting:
            pairs = list(self.budget.affordable(pairs_of(mistakes), self.own, len(self.c.record.facts.ids)))
            fitting = matches(self._outputs(pairs, site), target, expected, self.c.tolerance)
        # Several may send the same values into the site. The right one also explains most of the modules that follow.
        return max(fitting, key=lambda trial: self._progress(trial, seen)) if len(fitting) > 1 else (*fitting, ())[0]

    def _with_sinusoids(self, mistakes: Sequence[Mistake], target: Tensor, site: str) -> tuple[Mistake, ...]:
        """A table of sines and cosines, exact or as float32 gives it, alone or with a mistake in wte."""
        transformer = self.own.transformer
        others: list[tuple[Mistake, ...]] = [
            (),
            *((each,) for each in mistakes if {*each.forwards} == {transformer.wte}),
        ]
        nothing = without_positions(transformer)
        for (_, *other), tokens in self._outputs([(nothing, *other) for other in others], site):
            if tokens.shape[-1] != transformer.config.n_embd:
                continue
            for table, off_by in sinusoids(transformer, (target - tokens).flatten(0, -2)):
                for trial, output in self._outputs([(table, *other)], site):
                    value = distance(output, target)
                    if value <= self.c.tolerance:
                        return trial
                    if value <= _FLOAT32:
                        return (off_by(target - output), *trial[1:])
        return ()

    def _outputs(
        self, trials: Sequence[tuple[Mistake, ...]], site: str | None
    ) -> Iterator[tuple[tuple[Mistake, ...], Tensor]]:
        """Each trial with what it sends into the site, or with its logits for None."""
        for trial in trials:
            seen, logits = self._run([*self._mistakes(), *trial], [site] if site else [])
            arriving = _arriving(seen, site) if site else {}
            if site is None or site in arriving:
                yield trial, logits if site is None else arriving[site]

    def _progress(self, trial: tuple[Mistake, ...], seen: Trace) -> int:
        """The number of modules that receive right values in their order, with these mistakes made as well."""
        sites = _outermost(seen.calls)
        expected, _ = self._run([*self._mistakes(), *trial], sites)
        wrong = self._first_wrong(sites, seen, expected)
        return len(sites) if wrong is None else sites.index(wrong.site)

    def _expected(self, sites: list[str]) -> tuple[Trace | Record, Tensor]:
        """What the modules should receive, and the logits: the reference's, or those that the mistakes found give."""
        if not self._mistakes():
            return self.c.record, self.c.record.logits
        return self._run(self._mistakes(), sites)

    def _mistakes(self) -> list[Mistake]:
        return [each.mistake for each in self.found if each.mistake is not None]

    def _run(self, mistakes: list[Mistake], sites: list[str]) -> tuple[Trace, Tensor]:
        """gpt2x's own model with these mistakes: the trace of the sites, and the logits [T, V]."""
        modules = {site: module_at(self.own, whole_site(site)[0]) for site in sites}
        ids = torch.tensor([self.c.record.facts.ids])
        logits: list[Tensor] = []
        with made(mistakes):
            seen = trace(lambda: logits.append(self.own(ids)), modules)
        return seen, logits[0][0]


def _outermost(calls: list[str]) -> list[str]:
    """The sites that were called, each once, in their order, without those inside another site that was called."""
    called = dict.fromkeys(calls)
    return [site for site in called if not any(site.startswith(f"{other}.") for other in called)]


def _arriving(seen: Trace | Record, site: str) -> dict[str, Tensor]:
    """A module's input; its output if it is compared by that."""
    return seen.outputs if site in _BY_OUTPUT else seen.inputs


def _mismatch(c: Comparison, stage: Stage, site: str, value: float, mode: Mode | None = None) -> Check:
    metric = Metric.RELATIVE_DIFFERENCE
    return Check(stage, Status.MISMATCH, site, metric, mode, value=value, tolerance=c.tolerance)
