"""The stages config, tokenizer and weights: what can be compared without looking inside a forward pass."""

import difflib
from itertools import product

import torch
from torch import Tensor

from gpt2x.checkpoints.names import dtype_name, is_conv1d
from gpt2x.parity.comparison import Comparison, checked, failed, skipped
from gpt2x.parity.measures import ROUNDED, first_difference, relative_difference, rounded
from gpt2x.parity.rows import ParityRow
from gpt2x.parity.subject.names import HEAD
from gpt2x.parity.texts import TEXTS

STATEFUL = "it keeps something from one call to the next (a cache that is not reset?): runs with one seed differ"


def config_rows(c: Comparison) -> list[ParityRow]:
    """Parameter counts, the tied head counted once; and whether the subject behaves: finite, repeatable, polite."""
    ours, theirs, untied = c.subject.n_parameters, c.record.facts.n_parameters, c.subject.untied_head
    note = f"subject {ours:,}, reference {theirs:,}" if ours != theirs else f"{ours:,} in both"
    if untied is not None and _is_wte(c):
        ours -= untied.numel()
        note += f"; its head is not tied to wte: {untied.numel():,} parameters more, of the same values"
    rows = [checked("config", "model", "parameter_difference", abs(ours - theirs), 0, note)]
    ids = c.ids(c.exact)
    with torch.no_grad():
        torch.manual_seed(0)
        first = c.exact.logits(ids)
        torch.manual_seed(1)
        again = c.exact.logits(ids)
        torch.manual_seed(0)
        same_seed = c.exact.logits(ids)
    bad = int((~first.isfinite()).sum())
    status = "nonfinite" if bad else "ok"
    rows.append(ParityRow("config", "logits", "", "not_finite", bad, 0, status, ""))
    difference = 0.0 if bad else relative_difference(again, first)
    note = "" if difference <= c.bar else "two runs on the same input differ, in eval mode"
    if not bad and not relative_difference(same_seed, first) <= c.bar:
        note = STATEFUL
    rows.append(checked("config", "logits", "difference_of_two_runs", difference, c.bar, note))
    changed = int(c.exact.changes_input)
    note = "it changes the ids that it is given" if changed else ""
    return [*rows, checked("config", "input_ids", "changed", changed, 0, note)]


def tokenizer_rows(c: Comparison) -> list[ParityRow]:
    """Ids of the prompt and of ugly texts, and the texts back from the reference's ids."""
    if not c.ours:
        return [skipped("tokenizer", "the subject takes token ids")]
    rows, tokenizer = [], c.checkpoint.tokenizer
    for site, text in ({"prompt": c.record.facts.prompt} | TEXTS).items():
        theirs, their_text = c.record.facts.texts[site]
        ours = tokenizer.encode(text)
        where = first_difference(ours, theirs)
        at = slice(where, None if where is None else where + 3)
        note = "" if where is None else f"from token {where}: {ours[at]}, not {theirs[at]}"
        differing = max(len(ours), len(theirs)) - sum(a == b for a, b in zip(ours, theirs, strict=False))
        rows.append(checked("tokenizer", site, "differing_ids", differing, 0, note, mode="encode"))
        changed = int(tokenizer.decode(theirs) != their_text)
        rows.append(checked("tokenizer", site, "differing_texts", changed, 0, mode="decode"))
    return rows


def weight_rows(c: Comparison) -> list[ParityRow]:
    """Every tensor of both models, in Hugging Face's layout; bar 0."""
    metric, rows = "max_abs_difference", []
    ours, theirs = c.subject.tensors(), c.record.parameters
    for name, expected in theirs.items():
        actual = ours.get(name)
        if actual is None:
            what = "missing bias" if name.endswith("bias") else "no parameter of the subject has this name"
            rows.append(failed("weights", name, metric, "missing", what + _candidate(c, name)))
        elif actual.shape != expected.shape:
            note = f"subject {list(actual.shape)}, reference {list(expected.shape)}"
            rows.append(failed("weights", name, metric, "shape_mismatch", note))
        else:
            difference = _largest_difference(actual, expected)
            note = str(list(expected.shape)) if difference == 0 else explain_tensor(name, actual, theirs)
            rows.append(checked("weights", name, metric, difference, 0, note))
    for name in c.subject.unexpected():
        rows.append(failed("weights", name, metric, "unexpected", "the reference has none of this name"))
    head = c.subject.untied_head
    if head is None:
        note, difference = "tied to wte.weight" if HEAD in c.subject.parameters else "no parameter of its own", 0.0
    else:
        difference = 0.0 if _is_wte(c) else _largest_difference(c.subject.in_layout(HEAD), theirs["wte.weight"])
        note = "head not tied to wte.weight, " + ("of the same values" if difference == 0 else "of other values")
    return [*rows, checked("weights", HEAD, metric, difference, 0, note)]


def _candidate(c: Comparison, name: str) -> str:
    """Which of the subject's unmatched parameters this one may be."""
    shape = c.record.shapes[name]
    fitting = [own for own in c.subject.unexpected() if c.subject.parameters[own].shape in (shape, shape[::-1])]
    same_end = [own for own in fitting if own.endswith(f".{name}")]
    closest = same_end or difflib.get_close_matches(name, fitting, n=1, cutoff=0)
    if closest:
        return f"; {closest[0]} has its shape: subject.rename can map it"
    return "; subject.rename can map one" if c.subject.unexpected() else ""


def explain_tensor(name: str, actual: Tensor, theirs: dict[str, Tensor]) -> str:
    """What was done to the reference's tensor to make the subject's; tried, not guessed. '' if nothing known."""
    expected = theirs[name]
    candidates: dict[str, Tensor] = {}
    if is_conv1d(name) and expected.shape[0] == expected.shape[1]:
        candidates["not transposed"] = expected.t()
    if is_conv1d(name):
        candidates["reshaped instead of transposed"] = expected.reshape(expected.shape[::-1]).t()
    if ".c_attn." in name:
        q, k, v = expected.chunk(3, dim=-1)
        orders = {"q, v, k": (q, v, k), "k, q, v": (k, q, v), "k, v, q": (k, v, q)}
        orders |= {"v, q, k": (v, q, k), "v, k, q": (v, k, q)}
        candidates |= {f"in the order {order}": torch.cat(parts, -1) for order, parts in orders.items()}
        if expected.ndim == 2:
            for kept in product((True, False), repeat=3):
                turned = [part if keep else part.t() for part, keep in zip((q, k, v), kept, strict=True)]
                which = ", ".join(each for each, keep in zip("qkv", kept, strict=True) if not keep)
                candidates[f"not transposed: {which}"] = torch.cat(turned, -1)
    for half in ROUNDED:
        candidates[f"rounded to {dtype_name(half)}"] = rounded(expected, half)
    candidates["all zero"] = torch.zeros_like(expected)
    candidates["all one"] = torch.ones_like(expected)
    leaf = name.rpartition(".")[2]
    for other, tensor in theirs.items():
        if other != name and other.endswith(leaf) and tensor.shape == expected.shape:
            candidates[f"holds {other}"] = tensor
    for what, candidate in candidates.items():
        if torch.equal(candidate.to(actual), actual):
            return what
    return ""


def _is_wte(c: Comparison) -> bool:
    own, wte = c.subject.in_layout(HEAD), c.record.parameters["wte.weight"]
    return own.shape == wte.shape and torch.equal(own.to(wte), wte)


def _largest_difference(actual: Tensor, expected: Tensor) -> float:
    return (actual.to(expected) - expected).abs().max().item()
