"""Where the first divergence is, and why: found by trying known mistakes on our own modules, never by guessing."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from gpt2x.checkpoints.load import model_of
from gpt2x.checkpoints.names import dtype_name, is_conv1d
from gpt2x.model.config import GPT2Config
from gpt2x.model.gpt2 import GPT2
from gpt2x.parity.comparison import Comparison
from gpt2x.parity.measures import ERROR_RATIO, ROUNDED, relative_difference, rounded
from gpt2x.parity.mistakes import mistakes_in
from gpt2x.parity.mistakes.mistake import Mistake
from gpt2x.parity.mistakes.wiring import wiring_mistakes
from gpt2x.parity.rows import ParityRow
from gpt2x.parity.stages.layers import aligned
from gpt2x.parity.stages.statics import STATEFUL
from gpt2x.parity.subject import SubjectError
from gpt2x.parity.subject.names import HEAD, whole_site
from gpt2x.parity.trace import trace

# A trial explains the subject if it comes this much closer to it than the reference does. In float64 the
# bar alone decides; where bars are wide, being within them is not yet an explanation.
_CLOSER = 0.1


@dataclass(frozen=True)
class Diagnosis:
    """The headline of a failed validation."""

    site: str
    """`h.0.mlp`; `input of h.1` where what reaches a module is wrong; `tokenizer: newlines` outside the model."""
    row: ParityRow
    """The comparison that shows it."""
    cause: str
    """The mistake that reproduces it, what the row's own note says, or 'unknown' with numbers."""


@torch.no_grad()
def diagnose(c: Comparison, rows: list[ParityRow]) -> tuple[Diagnosis, list[ParityRow]]:
    """What went wrong first, given the rows of all stages, at least one of them bad; and rows to add to them.

    A guilty module comes first; then what reaches a module; then the first bad row of any stage.
    """
    bad = [row for row in rows if row.bad]
    guilty = next((row for row in bad if row.stage == "layers" and row.mode == "isolated"), None)
    if guilty is not None:
        return Diagnosis(guilty.site, guilty, _cause_in(c, guilty.site, rows)), []
    if all(_is_of_rounding(c, row) for row in bad):
        return _roundest(rows, bad), []
    # A count of parameters says less than which of them are too few or too many.
    first = next((row for row in bad if row.metric != "parameter_difference"), bad[0])
    outputs = [row for row in bad if row.stage in ("layers", "logits", "loss", "generation")]
    if (
        outputs
        and any(row.stage == "layers" for row in rows)
        and first.stage in ("config", "weights", outputs[0].stage)
    ):
        found = _between_modules(c, rows, outputs)
        if found is not None:
            return found, [found.row] if found.row not in rows else []
    if first.stage == "gradients":
        first = bad[-1] if bad[-1].stage == "gradients" else first  # backwards, this is where it begins
    numbers = "unknown"
    if first.value is not None and first.tolerance is not None:
        numbers += f": {first.value:.3g} against {first.tolerance:.3g}"
    return Diagnosis(f"{first.stage}: {first.site}", first, first.note or numbers), []


def _between_modules(c: Comparison, rows: list[ParityRow], outputs: list[ParityRow]) -> Diagnosis | None:
    """No module is wrong in itself: what one of them is given is, or what is done with the logits."""
    place = _first_wrong_input(c)
    if place is not None:
        site, difference = place
        row = ParityRow("layers", site, "input", "relative_difference", difference, c.bar, "mismatch", "")
        cause = _cause_of_chance(c, rows) if _is_random(rows) else _cause_of_wiring(c, site)
        found = Diagnosis(f"input of {site}", row, cause)
    elif any(row.stage == "logits" for row in outputs):
        found = Diagnosis("logits: lm_head", outputs[0], _cause_at_the_end(c))
    else:
        return None
    unmatched = _unmatched(rows)
    if found.cause.startswith("unknown") and unmatched is not None:
        return Diagnosis(f"weights: {unmatched.site}", unmatched, unmatched.note)
    return found


def _is_of_rounding(c: Comparison, row: ParityRow) -> bool:
    """Whether a row is about the dtype asked for, and says nothing of the function in float64."""
    in_dtype = c.subject is not c.exact and row.stage == "logits" and row.mode == c.record.facts.dtype
    return in_dtype or row.metric == "error_ratio" or row.stage == "generation"


def _roundest(rows: list[ParityRow], bad: list[ParityRow]) -> Diagnosis:
    """The same function in float64, and not as accurate in the dtype: the first module of which that is true."""
    if bad[0].stage == "generation":
        return Diagnosis(f"generation: {bad[0].site}", bad[0], bad[0].note)
    for row in rows:
        if row.stage == "layers" and row.metric == "error_ratio" and not (row.value or 0.0) <= ERROR_RATIO:
            return Diagnosis(row.site, row, _of_rounding(row))
    last = next((row for row in bad if row.metric == "error_ratio"), bad[0])
    return Diagnosis("logits: lm_head", last, _of_rounding(last))


def _of_rounding(row: ParityRow) -> str:
    if row.status == "nonfinite":
        return "the same function in float64, but in this dtype it overflows"
    return f"the same function in float64, but its rounding error is {row.value:.3g} times the reference's"


def _cause_in(c: Comparison, site: str, rows: list[ParityRow]) -> str:
    if _is_random(rows):
        return _cause_of_chance(c, rows)
    whole = whole_site(site)[0]
    cause = _explained(rows, whole) or _cause_by_trial(c, site)
    if not cause.startswith("unknown"):
        return cause
    unmatched = _unmatched(rows, f"{whole}.")
    if unmatched is not None:
        return f"{unmatched.note}: {unmatched.site}"
    other = [row for row in rows if row.stage == "weights" and row.site.startswith(f"{whole}.") and row.bad]
    return f"unknown: {other[0].site} is not the reference's, by {other[0].value:.3g}" if other else cause


def _cause_by_trial(c: Comparison, site: str) -> str:
    if site == "lm_head" and c.exact.untied_head is not None:
        return _trial_of_head(c)
    if site not in c.isolated:
        return "unknown"
    target = aligned(c.isolated[site].cpu(), c.record.outputs[site])
    if target is None:
        return f"it answers with the shape {list(c.isolated[site].shape)}"
    whole, third = whole_site(site)
    own = _own_part(c, whole)
    x = c.record.inputs[whole]
    expected = _third(own(x), third)
    if relative_difference(expected, c.record.outputs[site]) > c.bar:
        return "unknown: gpt2x's own module differs from the reference here"
    trials = ((mistake, _tried(own, mistake, x, third)) for mistake in mistakes_in(own))
    return _best(c, trials, target, c.record.outputs[site])


def _explained(rows: list[ParityRow], site: str) -> str:
    """What is known of wrong tensors inside a module."""
    for row in rows:
        if row.stage == "weights" and row.status == "mismatch" and row.site.startswith(f"{site}.") and row.note:
            return f"{row.note}: {row.site}"
    return ""


def _unmatched(rows: list[ParityRow], prefix: str = "") -> ParityRow | None:
    """The first parameter that only one of the two models has, or has in this shape."""
    kinds = ("missing", "unexpected", "shape_mismatch")
    found = (row for row in rows if row.stage == "weights" and row.status in kinds)
    return next((row for row in found if row.site.startswith(prefix)), None)


def _tried(own: nn.Module, mistake: Mistake, x: Tensor, third: int | None) -> Tensor:
    with mistake.made():
        return _third(own(x), third)


def _best(c: Comparison, trials: Iterable[tuple[Mistake, Tensor]], target: Tensor, expected: Tensor) -> str:
    """The mistake whose output is the subject's."""
    off = _distance(target, expected)
    causes: dict[float, str] = {}
    for mistake, output in trials:
        distance = _distance(output, target)
        if distance <= min(c.bar, _CLOSER * off):
            causes.setdefault(distance, mistake.cause)
    if causes:
        # Of those that differ by rounding only, the first: a mistake of the whole before one of its parts.
        return next(cause for distance, cause in causes.items() if distance <= max(10 * min(causes), 1e-14))
    factor = _factor(target, expected)
    if _distance(target, factor * expected) <= min(c.bar, _CLOSER * off):
        return f"the right values times {factor:.12g}"
    return f"unknown: none of the mistakes tried gives this output, which is {off:.3g} of the reference's scale away"


def _factor(actual: Tensor, expected: Tensor) -> float:
    """By how much the expected values are to be multiplied to come closest."""
    return ((actual * expected).sum() / expected.square().sum()).item()


def _distance(actual: Tensor, expected: Tensor) -> float:
    """relative_difference, with NaN equal to NaN: a mistake may make the same ones."""
    if actual.shape != expected.shape or not torch.equal(actual.isnan(), expected.isnan()):
        return float("inf")
    return relative_difference(actual.nan_to_num(), expected.nan_to_num())


def _is_random(rows: list[ParityRow]) -> bool:
    return any(row.metric == "difference_of_two_runs" and row.status != "ok" for row in rows)


def _cause_of_chance(c: Comparison, rows: list[ParityRow]) -> str:
    if any(row.note == STATEFUL for row in rows):
        return STATEFUL
    try:
        with _NoDropout():
            logits = c.exact.logits(c.ids(c.exact))[0].cpu()
    except SubjectError:
        logits = torch.full_like(c.record.logits, torch.nan)
    if relative_difference(logits, c.record.logits) <= c.bar:
        return "dropout active in eval mode: without it the subject equals the reference"
    return "random in eval mode: two runs on the same input differ, and not only by dropout"


class _NoDropout(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in ("dropout", "dropout_", "alpha_dropout", "feature_dropout"):
            return args[0] if args else kwargs["input"]
        if func is F.scaled_dot_product_attention:
            return func(*args[:4], **{key: value for key, value in kwargs.items() if key != "dropout_p"})
        return func(*args, **kwargs)


def _trial_of_head(c: Comparison) -> str:
    tied = F.linear(c.record.inputs["lm_head"].to(c.record.exact), c.exact.in_layout(HEAD).cpu())
    target = aligned(c.isolated["lm_head"].cpu(), c.record.outputs["lm_head"])
    if target is not None and _distance(tied, target) <= c.bar:
        return "head not tied: lm_head.weight is not wte.weight"
    return "unknown: neither wte.weight nor the head's own weight gives these logits"


def _first_wrong_input(c: Comparison) -> tuple[str, float] | None:
    """The first module, in the subject's order, that receives something else than the reference's does."""
    for site in c.propagated.calls:
        if site in c.record.inputs and site in c.propagated.inputs:
            expected = c.record.inputs[site]
            actual = aligned(c.propagated.inputs[site].cpu(), expected)
            difference = float("inf") if actual is None else relative_difference(actual, expected)
            if not difference <= c.bar:
                return site, difference
    return None


def _cause_of_wiring(c: Comparison, site: str) -> str:
    """Runs our whole model with one mistake at a time, and looks at what then reaches the module."""
    ours, theirs = c.propagated, c.record
    # Of an embedding what comes out: our mistakes with positions are made inside wpe.
    seen, expected = (ours.outputs, theirs.outputs) if site in ("wte", "wpe") else (ours.inputs, theirs.inputs)
    target = aligned(seen[site].cpu(), expected[site])
    if target is None:
        return f"it receives the shape {list(c.propagated.inputs[site].shape)}"
    return _best(c, _rewired(c, whole_site(site)[0]), target, expected[site])


def _rewired(c: Comparison, site: str | None) -> Iterable[tuple[Mistake, Tensor]]:
    """Each wiring mistake with what it sends into a site, or, for None, with its logits [T, V]."""
    model = _own_model(c, list(c.record.parameters))
    ids = torch.tensor([c.record.facts.ids])
    module = {site: _find(model, site)} if site else {}
    layers = [call for call in c.propagated.calls if call.startswith("h.") and call.count(".") == 1]
    logits: list[Tensor] = []
    calls, inside = [int(layer.partition(".")[2]) for layer in layers], not any("h." in site for site in c.isolated)
    for mistake in wiring_mistakes(model.transformer, calls, inside):
        with mistake.made():
            seen = trace(lambda: logits.append(model(ids)), module)
        output = logits.pop()[0]
        if site is None:
            yield mistake, output
        elif site in seen.inputs:
            yield mistake, (seen.outputs if site in ("wte", "wpe") else seen.inputs)[site]


def _cause_at_the_end(c: Comparison) -> str:
    """All modules and their inputs are right, and the logits are not."""
    expected = c.record.logits
    actual = c.exact.logits(c.ids(c.exact))[0].cpu()
    if relative_difference(actual, expected) <= c.bar:
        return "unknown: the prompt's logits agree"
    off = actual - expected
    scale = expected.abs().max()
    if (off - off[:, :1]).abs().max() <= c.bar * scale:
        return "a constant is added at each position, which softmax does not see"
    factor = _factor(actual, expected)
    if relative_difference(actual, factor * expected) <= c.bar:
        return f"logits scaled by {factor:.12g}"
    if len(off) > 1 and (off - off[:1]).abs().max() <= c.bar * scale:
        return "a bias is added to the logits"
    if relative_difference(actual, expected.softmax(-1)) <= c.bar:
        return "probabilities instead of logits: a softmax at the end"
    for half in ROUNDED:
        if relative_difference(actual, rounded(expected, half)) <= c.bar:
            return f"logits rounded to {dtype_name(half)}"
    return _best(c, _rewired(c, None), actual, expected)


def _own_model(c: Comparison, names: list[str]) -> GPT2:
    """Our model in the exact dtype with the named tensors of the reference, and no memory for the others."""
    state = {
        f"transformer.{name}": (tensor.t() if is_conv1d(name) else tensor).to("cpu", c.record.exact)
        for name, tensor in c.record.parameters.items()
        if name in names
    }
    return model_of(state, GPT2Config(**c.record.facts.architecture))


def _own_part(c: Comparison, site: str) -> nn.Module:
    prefix = "wte." if site == "lm_head" else f"{site}."
    return _find(_own_model(c, [name for name in c.record.parameters if name.startswith(prefix)]), site)


def _find(model: GPT2, site: str) -> nn.Module:
    return model.lm_head if site == "lm_head" else model.transformer.get_submodule(site)


def _third(output: Tensor, third: int | None) -> Tensor:
    return output if third is None else output.chunk(3, dim=-1)[third]
