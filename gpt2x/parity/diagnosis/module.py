"""Why a module is wrong on the reference's input: known mistakes are made in gpt2x's own module, one at a time."""

from torch import Tensor, nn
from torch.nn import functional as F

from gpt2x.parity.checks import Cause, Check
from gpt2x.parity.comparison import Comparison
from gpt2x.parity.diagnosis.own import own_module
from gpt2x.parity.diagnosis.randomness import cause_of_randomness, is_random
from gpt2x.parity.diagnosis.trial import best_match, distance
from gpt2x.parity.diagnosis.weights import different, explained, unmatched
from gpt2x.parity.measures import aligned, relative_difference
from gpt2x.parity.mistakes import mistakes_in
from gpt2x.parity.mistakes.mistake import Mistake
from gpt2x.parity.subject.names import HEAD, whole_site


def cause_in_module(c: Comparison, site: str, checks: list[Check]) -> Cause:
    """Randomness first, then what the stage weights knows, then trials."""
    if is_random(checks):
        return cause_of_randomness(c, checks)
    whole = whole_site(site)[0]
    cause = explained(checks, whole) or _by_trial(c, site)
    if cause.known:
        return cause
    alone = unmatched(checks, f"{whole}.")
    if alone is not None:
        return Cause(f"{alone.note}: {alone.site}")
    other = different(checks, whole)
    return Cause(f"{other.site} is not the reference's, by {other.value:.3g}", known=False) if other else cause


def _by_trial(c: Comparison, site: str) -> Cause:
    if site == "lm_head" and c.exact.untied_head is not None:
        return _untied_head(c)
    if site not in c.isolated:
        return Cause("", known=False)
    expected = c.record.outputs[site]
    target = aligned(c.isolated[site].cpu(), expected)
    if target is None:
        return Cause(f"it answers with the shape {list(c.isolated[site].shape)}")
    whole, third = whole_site(site)
    own = own_module(c, whole)
    x = c.record.inputs[whole]
    if relative_difference(third_of(own(x), third), expected) > c.tolerance:
        return Cause("gpt2x's own module differs from the reference here", known=False)
    trials = ((mistake, _tried(own, mistake, x, third)) for mistake in mistakes_in(own))
    return best_match(c, trials, target, expected)


def _untied_head(c: Comparison) -> Cause:
    tied = F.linear(c.record.inputs["lm_head"].to(c.record.exact), c.exact.in_layout(HEAD).cpu())
    target = aligned(c.isolated["lm_head"].cpu(), c.record.outputs["lm_head"])
    if target is not None and distance(tied, target) <= c.tolerance:
        return Cause("head not tied: lm_head.weight is not wte.weight")
    return Cause("neither wte.weight nor the head's own weight gives these logits", known=False)


def _tried(own: nn.Module, mistake: Mistake, x: Tensor, third: int | None) -> Tensor:
    with mistake.made():
        return third_of(own(x), third)


def third_of(output: Tensor, third: int | None) -> Tensor:
    """The query's, the key's or the value's third of c_attn's output; all of it for None."""
    return output if third is None else output.chunk(3, dim=-1)[third]
