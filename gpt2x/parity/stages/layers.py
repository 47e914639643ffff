"""The stage layers: every module with a Hugging Face name, on the reference's input and on its own."""

from torch import Tensor, nn

from gpt2x.parity.comparison import Comparison, checked, failed, skipped, stated
from gpt2x.parity.measures import error_ratio, relative_difference, rms
from gpt2x.parity.rows import ParityRow
from gpt2x.parity.subject import Subject
from gpt2x.parity.trace import isolate, trace


def layer_rows(c: Comparison) -> list[ParityRow]:
    """For each module: isolated, then propagated, then its rounding beside the reference's in the dtype asked for.

    *Isolated*, it is given the reference's input, so that only a guilty module differs. *Propagated*, the
    subject feeds itself. A module that the subject has not got, or does not call, is skipped, never ok.
    """
    sites = modules_of(c, c.exact)
    logits: list[Tensor] = []
    c.propagated = trace(lambda: logits.append(c.exact.logits(c.ids(c.exact))), sites)
    c.isolated = isolate(lambda: c.exact.logits(c.ids(c.exact)), sites, c.record.inputs)
    in_dtype: dict[str, Tensor] = {}
    if c.subject is not c.exact:
        ids = c.ids(c.subject)
        in_dtype = isolate(lambda: c.subject.logits(ids), modules_of(c, c.subject), c.record.inputs)
    rows = []
    for site in [site for site in c.record.outputs if _is_compared(c, site)]:
        if site not in sites:
            rows.append(skipped("layers", "the subject has no such module", site, "isolated"))
        elif site not in c.isolated:
            rows.append(skipped("layers", "the subject does not call it", site, "isolated"))
        else:
            rows += [
                _row(c, site, mode, ys) for mode, ys in (("isolated", c.isolated), ("propagated", c.propagated.outputs))
            ]
            if site in in_dtype:
                rows += _rounding(c, site, in_dtype[site])
    same = relative_difference(logits[0][0], c.record.logits) <= c.bar
    other = same and not c.ours
    return [_elsewhere(row) if other and row.status != "ok" and row.metric != "error_ratio" else row for row in rows]


def modules_of(c: Comparison, subject: Subject) -> dict[str, nn.Module]:
    return {site: module for site, module in subject.sites.items() if site in c.record.outputs}


def aligned(actual: Tensor, expected: Tensor) -> Tensor | None:
    """A tensor of the subject in the reference's shape; None if it is of another size."""
    return actual.reshape(expected.shape) if actual.numel() == expected.numel() else None


def _is_compared(c: Comparison, site: str) -> bool:
    """Not the thirds of c_attn in a subject without them, nor c_attn in one with; nor absent dropout."""
    thirds, sites = site.count("c_attn.") == 1, c.exact.sites
    if thirds or f"{site}.q" in sites:
        return site in sites
    return site in sites or "drop" not in site


def _elsewhere(row: ParityRow) -> ParityRow:
    """No module of the same function is wrong: one that differs begins or ends at another place."""
    why = row.note if row.status == "skipped" else "another part of the model than the reference's: the logits agree"
    return skipped(row.stage, why, row.site, row.mode, row.metric)


def _row(c: Comparison, site: str, mode: str, outputs: dict[str, Tensor]) -> ParityRow:
    expected = c.record.outputs[site]
    actual = aligned(outputs[site], expected)
    if actual is None:
        note = f"subject {list(outputs[site].shape)}, reference {list(expected.shape)}"
        return failed("layers", site, "relative_difference", "shape_mismatch", note, mode)
    value = relative_difference(actual, expected)
    return checked("layers", site, "relative_difference", value, c.bar, mode=mode)


def _rounding(c: Comparison, site: str, output: Tensor) -> list[ParityRow]:
    expected = c.record.outputs[site].double()
    actual = aligned(output, expected)
    if actual is None:  # which is said already
        return []
    error = rms(actual.cpu().double() - expected)
    ratio = error_ratio(error, c.record.facts.site_errors[site], rms(expected), c.record.dtype)
    return [stated("layers", site, "error_ratio", ratio, mode=f"isolated, {c.dtype}")]
