"""The stage weights: every tensor of both models, in Hugging Face's layout. The tolerance is 0."""

import difflib
from itertools import product

import torch
from torch import Tensor

from gpt2x.checkpoints.names import dtype_name, is_conv1d
from gpt2x.config.tasks.validate import Stage
from gpt2x.parity.causes import Cause
from gpt2x.parity.checks import Check, Metric, Status, checked, incomparable, skipped
from gpt2x.parity.comparison import Comparison
from gpt2x.parity.measures import ROUNDED, rounded
from gpt2x.parity.stages.stage import ParityStage, StageResult
from gpt2x.parity.subject.names import HEAD

_METRIC = Metric.MAX_ABS_DIFFERENCE


def _compare(c: Comparison) -> StageResult:
    ours, theirs = c.subject.tensors(), c.record.parameters
    checks = [_tensor(c, name, ours.get(name)) for name in theirs]
    for name in c.subject.parts.unexpected:
        if name in c.idle:
            checks.append(skipped(Stage.WEIGHTS, c.idle[name], name, metric=_METRIC))
            continue
        note = "the reference has no parameter of this name"
        checks.append(incomparable(Stage.WEIGHTS, name, _METRIC, Status.UNEXPECTED, note))
    return StageResult([*checks, _head(c)])


def _tensor(c: Comparison, name: str, actual: Tensor | None) -> Check:
    expected = c.record.parameters[name]
    if actual is None:
        what = "missing bias" if name.endswith("bias") else "no parameter of the subject has this name"
        return incomparable(Stage.WEIGHTS, name, _METRIC, Status.MISSING, what + _candidate(c, name))
    if actual.shape != expected.shape:
        note = f"subject {list(actual.shape)}, reference {list(expected.shape)}"
        return incomparable(Stage.WEIGHTS, name, _METRIC, Status.SHAPE_MISMATCH, note)
    difference = _largest_difference(actual, expected)
    if difference == 0:
        return checked(Stage.WEIGHTS, name, _METRIC, difference, 0, str(list(expected.shape)))
    return checked(Stage.WEIGHTS, name, _METRIC, difference, 0, cause=_explain(name, actual, c.record.parameters))


def _head(c: Comparison) -> Check:
    if not c.subject.parts.untied_head:
        note = "tied to wte.weight" if HEAD in c.subject.parts.parameters else "no parameter of its own"
        return checked(Stage.WEIGHTS, HEAD, _METRIC, 0.0, 0, note)
    untied = "head not tied to wte.weight, "
    wte = c.record.parameters["wte.weight"]
    difference = 0.0 if head_is_wte(c) else _largest_difference(c.subject.tensor(HEAD), wte)
    if difference == 0:
        return checked(Stage.WEIGHTS, HEAD, _METRIC, difference, 0, f"{untied}with the same values")
    return checked(Stage.WEIGHTS, HEAD, _METRIC, difference, 0, cause=Cause(f"{untied}with other values"))


def head_is_wte(c: Comparison) -> bool:
    """Whether the subject's head, which is a parameter, has the values of the reference's wte."""
    own, wte = c.subject.tensor(HEAD), c.record.parameters["wte.weight"]
    return own.shape == wte.shape and torch.equal(own.to(wte), wte)


def _largest_difference(actual: Tensor, expected: Tensor) -> float:
    actual = actual.to(expected)
    return 0.0 if torch.equal(actual, expected) else (actual - expected).abs().max().item()


def _candidate(c: Comparison, name: str) -> str:
    """Which of the subject's unmatched parameters may be the missing one."""
    shape, parts = c.record.shapes[name], c.subject.parts
    fitting = [own for own in parts.unexpected if parts.parameters[own] in (shape, shape[::-1])]
    same_end = [own for own in fitting if own.endswith(f".{name}")]
    closest = same_end or difflib.get_close_matches(name, fitting, n=1, cutoff=0)
    if closest:
        return f"; {closest[0]} has its shape: subject.rename can map it"
    return "; subject.rename can map one" if parts.unexpected else ""


def _explain(name: str, actual: Tensor, theirs: dict[str, Tensor]) -> Cause | None:
    """The change to the reference's tensor that gives exactly the subject's; None if none of those tried does."""
    candidates = _candidates(name, theirs)
    return next((Cause(what) for what, tensor in candidates.items() if torch.equal(tensor.to(actual), actual)), None)


def _candidates(name: str, theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Mistake -> what it makes of the reference's tensor, in the order in which they are tried."""
    expected = theirs[name]
    candidates: dict[str, Tensor] = {}
    if is_conv1d(name) and expected.shape[0] == expected.shape[1]:
        candidates["not transposed"] = expected.t()
    if is_conv1d(name):
        candidates["reshaped instead of transposed"] = expected.reshape(expected.shape[::-1]).t()
    if ".c_attn." in name:
        candidates |= _wrong_thirds(expected)
    for half in ROUNDED:
        candidates[f"rounded to {dtype_name(half)}"] = rounded(expected, half)
    candidates["all zero"] = torch.zeros_like(expected)
    candidates["all one"] = torch.ones_like(expected)
    leaf = name.rpartition(".")[2]
    for other, tensor in theirs.items():
        if other != name and other.endswith(leaf) and tensor.shape == expected.shape:
            candidates[f"holds {other}"] = tensor
    return candidates


def _wrong_thirds(expected: Tensor) -> dict[str, Tensor]:
    """Query, key and value in another order, or some of them not transposed."""
    q, k, v = expected.chunk(3, dim=-1)
    orders = {"q, v, k": (q, v, k), "k, q, v": (k, q, v), "k, v, q": (k, v, q)}
    orders |= {"v, q, k": (v, q, k), "v, k, q": (v, k, q)}
    candidates = {f"in the order {order}": torch.cat(parts, -1) for order, parts in orders.items()}
    if expected.ndim == 2:
        for kept in product((True, False), repeat=3):
            turned = [part if keep else part.t() for part, keep in zip((q, k, v), kept, strict=True)]
            which = ", ".join(each for each, keep in zip("qkv", kept, strict=True) if not keep)
            candidates[f"not transposed: {which}"] = torch.cat(turned, -1)
    return candidates


WEIGHTS = ParityStage(Stage.WEIGHTS, _compare)
