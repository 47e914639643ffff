"""The stage layers: every module with a Hugging Face name, on the reference's input and on the subject's own."""

import math

from torch import Tensor

from gpt2x.config.tasks.validate import Stage
from gpt2x.parity.checks import Check, Metric, Mode, Status, checked, incomparable, informational, skipped
from gpt2x.parity.comparison import Comparison
from gpt2x.parity.measures import aligned, error_ratio, relative_difference, rms
from gpt2x.parity.stages.stage import ParityStage, StageResult
from gpt2x.parity.subject.names import is_dropout, whole_site


def _compare(c: Comparison) -> StageResult:
    """Per module: isolated, then propagated, then its rounding error in the dtype asked for.

    *Isolated*, it is given the reference's input, so that only a guilty module differs. *Propagated*, the
    subject feeds itself. A module that the subject lacks, or does not call, is skipped, never ok.
    """
    c.propagated, logits = c.exact.trace(c.ids, c.sites)
    c.of_another_kind = _of_another_kind(c)
    sites = c.sites
    c.isolated = c.exact.isolate(c.ids, c.record.inputs, sites)
    in_dtype: dict[str, Tensor] = {}
    if c.subject is not c.exact:
        in_dtype = c.subject.isolate(c.ids, c.record.inputs, sites)
    checks = []
    for site in [site for site in c.record.outputs if _is_compared(c, site)]:
        if site not in sites:
            checks.append(skipped(Stage.LAYERS, "the subject has no such module", site, Mode.ISOLATED))
        elif site not in c.isolated:
            checks.append(skipped(Stage.LAYERS, "the subject does not call it", site, Mode.ISOLATED))
        else:
            checks.append(output_check(c, site, Mode.ISOLATED, c.isolated[site]))
            checks.append(output_check(c, site, Mode.PROPAGATED, c.propagated.outputs[site]))
            if site in in_dtype:
                checks += _rounding(c, site, in_dtype[site])
    same_function = relative_difference(logits[0], c.record.logits) <= c.tolerance
    return StageResult([elsewhere(check) for check in checks] if same_function and not c.ours else checks)


def _of_another_kind(c: Comparison) -> list[str]:
    """Modules that are called with ids where the reference's is called with floats, or the other way round.

    One that adds positions to embeddings, for example, is no table of positions. Dropout with another width is in
    another place.
    """
    return [
        site
        for site, x in c.propagated.inputs.items()
        if site in c.record.inputs and _is_of_another_kind(site, x, c.record.inputs[site])
    ]


def _is_of_another_kind(site: str, x: Tensor, expected: Tensor) -> bool:
    is_elsewhere = is_dropout(site) and x.shape[-1] != expected.shape[-1]
    return x.is_floating_point() != expected.is_floating_point() or is_elsewhere


def _is_compared(c: Comparison, site: str) -> bool:
    """A subject has either c_attn, its three thirds or their heads; and it need not have dropout modules."""
    sites = c.exact.parts.sites
    if whole_site(site)[1] is not None or any(part.startswith(f"{site}.q") for part in sites):
        return site in sites
    return site in sites or not is_dropout(site)


def elsewhere(check: Check) -> Check:
    """Where the logits agree, no module is wrong: a module that differs begins or ends at another place."""
    if not check.bad or check.metric is Metric.ERROR_RATIO:
        return check
    why = "another part of the model than the reference's: the logits agree"
    return skipped(check.stage, why, check.site, check.mode, check.metric)


def output_check(c: Comparison, site: str, mode: Mode, output: Tensor) -> Check:
    """Whether a module's output is the reference's, in the exact dtype."""
    expected = c.record.outputs[site]
    actual = aligned(output, expected)
    if actual is None:
        note = f"subject {list(output.shape)}, reference {list(expected.shape)}"
        return incomparable(Stage.LAYERS, site, Metric.RELATIVE_DIFFERENCE, Status.SHAPE_MISMATCH, note, mode)
    value = relative_difference(actual, expected)
    return checked(Stage.LAYERS, site, Metric.RELATIVE_DIFFERENCE, value, c.tolerance, mode=mode)


def _rounding(c: Comparison, site: str, output: Tensor) -> list[Check]:
    """The module's error ratio in the dtype asked for, if the reference's own error is known."""
    reference_error = c.record.facts.site_errors.get(site)
    expected = c.record.outputs[site].double()
    actual = aligned(output, expected)
    if reference_error is None or actual is None:  # another size is reported by output_check
        return []
    if not math.isfinite(reference_error):
        why = f"the reference itself is not finite in {c.record.facts.dtype}"
        return [skipped(Stage.LAYERS, why, site, Mode.ISOLATED, Metric.ERROR_RATIO, c.dtype)]
    error = rms(actual.cpu().double() - expected)
    ratio = error_ratio(error, reference_error, rms(expected), c.record.dtype)
    return [informational(Stage.LAYERS, site, Metric.ERROR_RATIO, ratio, mode=Mode.ISOLATED, dtype=c.dtype)]


LAYERS = ParityStage(Stage.LAYERS, _compare, asks_oracle=True)
