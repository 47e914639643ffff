"""The stage generation: greedy tokens of both models, and at the first difference whether it is a tie."""

import torch

from gpt2x.config.decode import DecodeConfig
from gpt2x.config.tasks.validate import Stage
from gpt2x.decoding.generate import Request, generate
from gpt2x.decoding.sampler import Sampler
from gpt2x.parity.checks import Check, Metric, Mode, Status, Verdict
from gpt2x.parity.comparison import Comparison, gpt2_of
from gpt2x.parity.measures import ERROR_RATIO, RELATIVE_TOLERANCE, first_difference
from gpt2x.parity.reference.record import Generation
from gpt2x.parity.reference.sound import is_finite
from gpt2x.parity.rows import SideBySideRow
from gpt2x.parity.stages.stage import Need, ParityStage, StageResult


def _compare(c: Comparison) -> StageResult:
    both = [_continue(c, i, theirs) for i, theirs in enumerate(c.record.facts.generations)]
    return StageResult([check for check, _ in both], [texts for _, texts in both])


def _continue(c: Comparison, i: int, theirs: Generation) -> tuple[Check, SideBySideRow]:
    """Prompt i, continued by the subject, beside the reference's continuation."""
    ours = _greedy(c, theirs.prompt_ids)
    where = first_difference(ours, theirs.ids)
    margin, verdict, note, matched = None, Verdict.SAME, "", len(theirs.ids)
    if where is not None:
        matched = where
        margin = theirs.top2_margins[min(where, len(theirs.ids) - 1)]
        verdict = Verdict.TIE if margin <= _tie(c) else Verdict.DIFFERENT
        note = f"token {where}: subject {_token(c, ours, where)}, reference {_token(c, theirs.ids, where)}; "
        note += f"{verdict}, top-2 margin {margin:.3g}"
    wrong = verdict is Verdict.DIFFERENT and c.dtype != "int8"
    check = Check(
        Stage.GENERATION,
        Status.MISMATCH if wrong else Status.OK,
        f"prompt {i}",
        Metric.TOKENS_BEFORE_FIRST_DIFFERENCE,
        Mode.GREEDY,
        value=matched,
        note=note,
    )
    decode = c.checkpoint.tokenizer.decode
    return check, SideBySideRow(theirs.prompt, decode(ours), decode(theirs.ids), matched, where, margin, verdict)


def _greedy(c: Comparison, ids: list[int]) -> list[int]:
    """The subject's new tokens, end-of-text included: by gpt2x's own decoding, or by one forward pass per token."""
    eos_id, n = c.checkpoint.tokenizer.eos_id, c.record.facts.max_new_tokens
    if c.ours:
        sampler = Sampler(DecodeConfig(greedy=True, max_new_tokens=n), 0, eos_id)
        return next(generate(gpt2_of(c.subject), [Request(ids)], sampler))[1].ids
    new: list[int] = []
    while len(new) < n and (not new or new[-1] != eos_id):
        new.append(int(c.subject.logits(torch.tensor([ids + new]))[0, -1].argmax()))
    return new


def _tie(c: Comparison) -> float:
    """The largest margin that permitted rounding can turn: two logits, each off by 4 times the reference's error."""
    scale = c.record.logits.abs().max().item()
    if c.subject is c.exact:
        return 2 * RELATIVE_TOLERANCE[c.record.dtype] * scale
    error = (c.record.logits_in_dtype - c.record.logits.double()).abs().max().item()
    return 2 * ERROR_RATIO * max(error, torch.finfo(c.record.dtype).eps * scale)


def _token(c: Comparison, ids: list[int], where: int) -> str:
    return f"{c.checkpoint.tokenizer.decode([ids[where]])!r} ({ids[where]})" if where < len(ids) else "nothing"


GENERATION = ParityStage(
    Stage.GENERATION,
    _compare,
    (
        Need(lambda c: bool(c.record.facts.generations), "the saved reference has none"),
        Need(lambda c: is_finite(c.record.logits_in_dtype), "the reference's logits in this dtype are not finite"),
    ),
    asks_oracle=True,
)
