"""The stages logits, loss and gradients: what comes out at the end, and what would be learnt from it."""

from dataclasses import replace

import torch

from gpt2x.parity.comparison import Comparison, checked, device_of, failed, skipped, stated
from gpt2x.parity.measures import (
    ERROR_RATIO,
    KL_ROUNDING,
    LogitDifference,
    centred,
    compare_logits,
    error_ratio,
    relative_difference,
    rms,
)
from gpt2x.parity.reference.losses import context_losses, loss_of, sample
from gpt2x.parity.rows import ParityRow
from gpt2x.parity.subject.code import subject_code
from gpt2x.parity.subject.float64 import float32_is_float64

_NAMES = ("max_abs_difference", "mean_abs_difference", "relative_difference", "mean_kl", "top1_agreement")


@torch.no_grad()
def logit_rows(c: Comparison) -> list[ParityRow]:
    """The prompt's logits: the same function? And as accurate as it should be in the dtype asked for?"""
    expected = c.record.logits.double()
    actual = c.exact.logits(c.ids(c.exact))[0].cpu().double()
    rows = _exact_rows(c, compare_logits(actual, expected), expected, c.record.facts.exact)
    mode = f"{c.record.facts.exact}, centred"
    moved = _exact_rows(c, compare_logits(centred(actual), centred(expected)), centred(expected), mode)
    if any(row.status != "ok" for row in rows) and all(row.status == "ok" for row in moved):
        rows[0] = replace(rows[0], note="only a constant is added at each position, which softmax does not see")
    rows += moved
    if c.subject is c.exact:
        why = "float64 is what errors are measured by" if c.record.exact == torch.float64 else "float64 does not fit"
        return [*rows, skipped("logits", why, "lm_head", c.dtype, "error_ratio")]
    in_dtype = c.subject.logits(c.ids(c.subject))[0].cpu().double()
    difference = compare_logits(in_dtype, c.record.logits_in_dtype)
    rows += [
        stated("logits", "lm_head", name, value, mode=c.dtype)
        for name, value in zip(_NAMES, _values(difference), strict=True)
    ]
    error, theirs = rms(in_dtype - expected), rms(c.record.logits_in_dtype - expected)
    ratio = error_ratio(error, theirs, rms(expected), c.record.dtype)
    note = f"RMS {error:.3g} over {theirs:.3g}"
    if c.dtype == "int8":
        note += " of float32; int8 is meant to be less accurate, so this is said and not judged"
        return [*rows, stated("logits", "lm_head", "error_ratio", ratio, note, mode=c.dtype)]
    return [*rows, checked("logits", "lm_head", "error_ratio", ratio, ERROR_RATIO, note, mode=c.dtype)]


def _values(d: LogitDifference) -> tuple[float, ...]:
    return d.max_abs, d.mean_abs, d.relative, d.mean_kl, d.top1_agreement


def _exact_rows(c: Comparison, d: LogitDifference, expected: torch.Tensor, mode: str) -> list[ParityRow]:
    """Logits that move by at most t move the distribution by a KL of at most t^2 / 2 (Hoeffding's lemma)."""
    bar = c.bar * expected.abs().max().item()
    bars = (bar, bar, c.bar, max(bar**2 / 2, KL_ROUNDING))
    values = _values(d)
    rows = [
        checked("logits", "lm_head", name, value, tolerance, mode=mode)
        for name, value, tolerance in zip(_NAMES[:-1], values[:-1], bars, strict=True)
    ]
    # Two logits may swap places only if both moved by the bar at most: a tie.
    tie = d.largest_lost_margin <= 2 * bar
    note = "" if d.top1_agreement == 1 else f"largest margin lost {d.largest_lost_margin:.3g}"
    status = "ok" if tie else "mismatch"
    return [*rows, ParityRow("logits", "lm_head", mode, _NAMES[-1], d.top1_agreement, 1, status, note)]


def loss_rows(c: Comparison) -> list[ParityRow]:
    """Mean cross-entropy of one batch; and of each token of a text that fills the context, beyond the prompt's end."""
    expected = c.record.facts.loss
    if expected is None:
        return [skipped("loss", "the saved reference has none")]
    with torch.no_grad():
        value = abs(loss_of(c.exact, c.record.facts.ids, device_of(c.exact)).item() - expected) / expected
        losses = context_losses(c.exact, len(c.record.context_losses), device_of(c.exact))
    rows = [checked("loss", "batch of 2", "relative_difference", value, c.bar)]
    by_token = (losses - c.record.context_losses).abs() / c.record.context_losses.abs().max()
    wrong = (~(by_token <= c.bar)).nonzero().flatten().tolist()
    n, all_of_them = len(losses), c.record.shapes["wpe.weight"][0]
    note = (
        f"wrong from token {wrong[0]} of {n} on" if wrong else f"of {all_of_them} positions" if n < all_of_them else ""
    )
    rows.append(checked("loss", f"{n} tokens", "relative_difference", by_token.max().item(), c.bar, note))
    return rows


def gradient_rows(c: Comparison) -> list[ParityRow]:
    """That loss' gradient by parameter: evenly spaced entries, and the norm of all; relative to the largest entry."""
    if not c.record.gradients:
        why = "gradients in float64 do not fit in memory" if c.live else "the saved reference has none"
        return [skipped("gradients", why)]
    module, facts = c.exact.module, c.record.facts
    module.requires_grad_(True)
    try:
        loss = loss_of(c.exact, facts.ids, device_of(c.exact))
        if not loss.requires_grad:
            return [skipped("gradients", "the subject's forward pass keeps no gradients")]
        with subject_code(), float32_is_float64(c.record.exact):
            loss.backward()
        found = c.exact.gradients()
    finally:
        module.zero_grad(set_to_none=True)
        module.requires_grad_(False)
    rows, metric = [], "relative_difference"
    for name, expected in c.record.gradients.items():
        if name not in found:
            rows.append(failed("gradients", name, metric, "missing", "no gradient reaches it"))
        elif found[name].shape != c.record.shapes[name]:
            rows.append(failed("gradients", name, metric, "shape_mismatch", f"subject {list(found[name].shape)}"))
        else:
            norm = facts.gradient_norms[name]
            by_norm = abs(found[name].norm().item() - norm) / (norm or 1.0)
            value = max(relative_difference(sample(found[name]), expected), by_norm)
            rows.append(checked("gradients", name, metric, value, c.bar))
    return rows
