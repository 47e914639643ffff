"""Known mistakes, made in gpt2x's own model, against values that were recorded with rounding errors.

Rounding hides small differences, so several mistakes can explain a recording equally well. They are told together.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gpt2x.checkpoints.names import dtype_name
from gpt2x.model.gpt2 import GPT2, Transformer
from gpt2x.parity.causes import Cause
from gpt2x.parity.diagnosis.own import module_at, own_model
from gpt2x.parity.diagnosis.trial import CLOSER, distance, factor_between
from gpt2x.parity.measures import ERROR_RATIO, RELATIVE_TOLERANCE, ROUNDED, rms, rounded
from gpt2x.parity.mistakes import MISTAKES, mistakes_in
from gpt2x.parity.mistakes.mistake import Mistake, made
from gpt2x.parity.mistakes.wiring import wiring_mistakes
from gpt2x.parity.recorded.comparison import RecordedComparison
from gpt2x.parity.subject.names import portion_of, whole_site
from gpt2x.parity.trace import trace

_MOST = 3  # more mistakes that explain a recording equally well are no explanation
_SAME = 100  # two outputs of one function differ by less than this many units of the machine epsilon
_NOISE = 10  # rounding can make the true mistake this many times as distant as another one


@dataclass(frozen=True)
class Trial:
    """A mistake that was made in gpt2x's own model."""

    cause: Cause
    output: Tensor
    """What is compared with the recording: the output of a module, or the logits."""
    function: Tensor
    """Two mistakes are the same function if this is the same: the logits, or the output of the module itself."""


def named(c: RecordedComparison, trials: Iterable[Trial], target: Tensor, expected: Tensor) -> Cause | None:
    """The mistakes whose output is the recorded one, `target`, where the reference has `expected`; None for no match.

    Those that are the same function are one: the first.
    """
    found = [trial for trial in trials if fits(c, trial.output, target, expected)]
    distances = [distance(trial.output, target) for trial in found]
    nearest = _NOISE * min(distances, default=0.0)
    same = _SAME * torch.finfo(c.record.exact).eps
    different: list[Trial] = []
    for trial, value in zip(found, distances, strict=True):
        if value <= nearest and all(distance(trial.function, other.function) > same for other in different):
            different.append(trial)
    causes = [trial.cause.text for trial in different]
    if len(causes) > _MOST:
        return Cause(f"{len(causes)} mistakes explain it equally well, among them: {'; '.join(causes[:_MOST])}", False)
    several = ": the recording does not tell which" if len(causes) > 1 else ""
    return Cause(", or ".join(causes) + several) if causes else None


def fits(c: RecordedComparison, output: Tensor, target: Tensor, expected: Tensor) -> bool:
    """Whether a mistake's output can be what was recorded, `target`, where the reference has `expected`.

    It has to come much closer than the reference does, and as close as rounding in the dtype of the recording allows.
    """
    if not distance(output, target) <= min(c.tolerance, CLOSER * distance(target, expected)):
        return False
    return rms(output - target) <= ERROR_RATIO * c.rounding * rms(output)


def rounded_or_scaled(c: RecordedComparison, target: Tensor, expected: Tensor) -> Cause | None:
    """The reference's values, stored in a smaller dtype or times a factor; None if they are neither."""
    off = distance(target, expected)
    for half in ROUNDED:
        is_smaller = torch.finfo(half).eps > torch.finfo(c.record.dtype).eps
        if is_smaller and torch.equal(rounded(target, half), target) and off <= RELATIVE_TOLERANCE[half]:
            return Cause(f"rounded to {dtype_name(half)}")
    factor = factor_between(target, expected)
    if fits(c, factor * expected, target, expected):
        return Cause(f"the right values times {factor:.6g}")
    return None


def inside(c: RecordedComparison, site: str) -> Iterator[Trial]:
    """Each mistake in one module, with its output on the reference's input."""
    whole = whole_site(site)[0]
    own, x = module_at(own_model(c), whole), c.record.inputs[whole]
    for mistake in mistakes_in(own):
        with made([mistake]):
            output = portion_of(site, own(x))
        yield Trial(mistake.cause, output, output)


def everywhere(c: RecordedComparison, site: str) -> Iterator[Trial]:
    """Each mistake of the whole model, with the output of one module; `function` are the logits [T, V] as recorded."""
    whole = whole_site(site)[0]
    model = own_model(c)
    modules, ids, logits = {whole: module_at(model, whole)}, c.ids(), torch.empty(0)

    def forward() -> None:
        nonlocal logits
        logits = model(ids)[0]

    for mistake in _mistakes_of(model):
        with made([mistake]):
            seen = trace(forward, modules)
        if whole in seen.outputs:  # a mistake may leave the module out
            yield Trial(mistake.cause, portion_of(site, seen.outputs[whole]), c.as_recorded(logits))


def _mistakes_of(model: GPT2) -> Iterator[Mistake]:
    """Between modules, in all blocks, in all norms or all linear layers, and in the order of the layers."""
    transformer = model.transformer
    yield from wiring_mistakes(transformer, [], inside=True)
    for kind in (nn.LayerNorm, nn.Linear):
        for wrong in MISTAKES[kind]:
            modules = [part for part in transformer.modules() if isinstance(part, kind) and wrong.applies(part)]
            if modules:
                cause = wrong.in_module(modules[0]).cause
                yield Mistake(
                    cause,
                    {part: forward for each in modules for part, forward in wrong.in_module(each).forwards.items()},
                )
    for calls in _orders(transformer):
        yield next(wiring_mistakes(transformer, calls, inside=False))


def _orders(transformer: Transformer) -> Iterator[list[int]]:
    """Indices of blocks in wrong orders: backwards, two neighbours swapped, one left out, one run twice."""
    right = list(range(len(transformer.h)))
    if len(right) > 1:
        yield right[::-1]
    for i in right[:-1]:
        yield [*right[:i], i + 1, i, *right[i + 2 :]]
    for i in right:
        yield right[:i] + right[i + 1 :]
        yield [*right[: i + 1], *right[i:]]
