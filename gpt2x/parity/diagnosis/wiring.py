"""Why a module receives wrong values though no module is wrong: mistakes between modules, made one at a time."""

from collections.abc import Iterator

import torch
from torch import Tensor

from gpt2x.parity.checks import Cause
from gpt2x.parity.comparison import Comparison
from gpt2x.parity.diagnosis.own import module_at, own_model
from gpt2x.parity.diagnosis.trial import best_match
from gpt2x.parity.measures import aligned
from gpt2x.parity.mistakes.mistake import Mistake
from gpt2x.parity.mistakes.wiring import wiring_mistakes
from gpt2x.parity.reference.record import Record
from gpt2x.parity.subject.names import whole_site
from gpt2x.parity.trace import Trace, trace

_EMBEDDINGS = ("wte", "wpe")


def cause_of_wrong_input(c: Comparison, site: str) -> Cause:
    """The wiring mistake in gpt2x's own model that sends the subject's values into a module."""
    expected = _arriving(c.record, site)[site]
    target = aligned(_arriving(c.propagated, site)[site].cpu(), expected)
    if target is None:
        return Cause(f"it receives the shape {list(c.propagated.inputs[site].shape)}")
    whole = whole_site(site)[0]
    return best_match(c, _arrivals(c, whole), target, expected)


def rewired_logits(c: Comparison) -> Iterator[tuple[Mistake, Tensor]]:
    """Each wiring mistake with its logits [T, V]."""
    for mistake, logits, _ in _rewired(c):
        yield mistake, logits


def _arrivals(c: Comparison, site: str) -> Iterator[tuple[Mistake, Tensor]]:
    """Each wiring mistake with what it sends into a site."""
    for mistake, _, seen in _rewired(c, site):
        if site in seen.inputs:
            yield mistake, _arriving(seen, site)[site]


def _arriving(seen: Trace | Record, site: str) -> dict[str, Tensor]:
    """A module's input. For an embedding its output, because mistakes with positions are made inside wpe."""
    return seen.outputs if site in _EMBEDDINGS else seen.inputs


def _rewired(c: Comparison, site: str | None = None) -> Iterator[tuple[Mistake, Tensor, Trace]]:
    """Runs gpt2x's own model with each wiring mistake: logits [T, V], and the trace of the site."""
    model = own_model(c)
    ids = torch.tensor([c.record.facts.ids])
    modules = {site: module_at(model, site)} if site else {}
    blocks = [call for call in c.propagated.calls if call.startswith("h.") and call.count(".") == 1]
    calls = [int(block.removeprefix("h.")) for block in blocks]
    inside_blocks = not any("h." in site for site in c.isolated)
    logits: list[Tensor] = []
    for mistake in wiring_mistakes(model.transformer, calls, inside_blocks):
        with mistake.made():
            seen = trace(lambda: logits.append(model(ids)), modules)
        yield mistake, logits.pop()[0], seen
