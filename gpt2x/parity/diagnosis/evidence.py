"""Causes that hold at several places, said once, with what each of them changes in the logits."""

import re
from collections import Counter
from dataclasses import replace
from itertools import combinations

import torch
from torch import Tensor

from gpt2x.parity.diagnosis.own import module_at
from gpt2x.parity.diagnosis.repaired import RepairedSubject
from gpt2x.parity.diagnosis.result import CommonCause, Divergence, shown_with
from gpt2x.parity.diagnosis.trial import distance
from gpt2x.parity.mistakes.mistake import can_be_joined, made
from gpt2x.parity.subject.names import whole_site
from gpt2x.parity.trace import trace

_LAYER = re.compile(r"\bh\.(\d+)\b")
_HEAD = re.compile(r"(?<=c_attn\.[qkv]\.)\d+(?=_of_\d+)")


def common_causes(subject: RepairedSubject, divergences: list[Divergence]) -> list[CommonCause]:
    """One entry per cause, in the order of its first place, for the subject as it is.

    A known cause is made in gpt2x's own model. A module whose cause cannot be made is replaced in the subject. So the
    difference between the two models' logits changes with each cause, and vanishes with the last if all are found.
    """
    groups: dict[tuple[bool, str], list[Divergence]] = {}
    for each in divergences:
        groups.setdefault((each.cause.known, _text(each) if each.cause.known else _starred(each.place)), []).append(
            each
        )
    causes: list[CommonCause] = []
    explained: list[Divergence] = []
    n_layer = subject.c.record.facts.architecture["n_layer"]
    before = _difference(subject, explained)
    for (known, text), group in groups.items():
        explained += group
        can_be_computed = all(_is_explained(subject, each) for each in group) and _are_joinable(explained)
        after = _difference(subject, explained) if can_be_computed else None
        cause = group[0].cause
        if known and any(each.cause.text != cause.text for each in group):
            cause = replace(cause, text=text)
        sites = common_sites([each.place for each in group], n_layer)
        causes.append(CommonCause(sites, cause, group[0].check, before, after))
        before = before if after is None else after
    return causes


def common_sites(sites: list[str], n_layer: int) -> list[str]:
    """`h.*.mlp` for all layers, `h.0.mlp` and `h.2..4.mlp` for some; other sites as they are."""
    layers: dict[str, list[int]] = {}
    for site in dict.fromkeys(sites):
        layer = _layer_of(site)
        layers.setdefault(_starred(site), []).extend([] if layer is None else [layer])
    return _with_all_heads(
        [
            starred if len(in_layers) in (0, n_layer) else starred.replace("h.*", run, 1)
            for starred, in_layers in layers.items()
            for run in (_runs(in_layers) if 0 < len(in_layers) < n_layer else [""])
        ]
    )


def _with_all_heads(sites: list[str]) -> list[str]:
    """`h.*.attn.c_attn.q.*_of_12` in the place of that many sites, where all of them are there."""
    named = {site: _HEAD.sub("*", site) for site in sites}
    whole = {star for star, n in Counter(named.values()).items() if star.endswith(f"_of_{n}")}
    return list(dict.fromkeys(star if star in whole else site for site, star in named.items()))


def _runs(layers: list[int]) -> list[str]:
    """[0, 2, 3, 4] -> [`h.0`, `h.2..4`]."""
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return [f"h.{run[0]}" if len(run) == 1 else f"h.{run[0]}..{run[-1]}" for run in runs]


def _layer_of(site: str) -> int | None:
    found = _LAYER.search(site)
    return int(found[1]) if found else None


def _starred(site: str) -> str:
    """`input of h.1.mlp` -> `input of h.*.mlp`."""
    return _LAYER.sub("h.*", site, count=1)


def _text(each: Divergence) -> str:
    """The text of a cause, in which its own layer is `h.*`, and the end that the name of its tensor shares is `*`."""
    layer = _layer_of(each.place)
    text = each.cause.text if layer is None else re.sub(rf"\bh\.{layer}\b", "h.*", each.cause.text)
    words, name = text.split("."), each.tensor.split(".")
    n_shared = next((n for n, (a, b) in enumerate(zip(words[::-1], name[::-1], strict=False)) if a != b), 0)
    return ".".join([*words[: len(words) - n_shared], "*"]) if n_shared else text


def _is_explained(subject: RepairedSubject, each: Divergence) -> bool:
    """Whether the logits can be computed without this difference between the two models."""
    is_made = each.mistake is not None or each.right_input is not None or each.random
    return is_made or each.site in subject.c.record.outputs


def _are_joinable(explained: list[Divergence]) -> bool:
    mistakes = [each.mistake for each in explained if each.mistake is not None]
    return all(can_be_joined(a, b) for a, b in combinations(mistakes, 2))


def _difference(subject: RepairedSubject, explained: list[Divergence]) -> float:
    """Between the logits of the subject and of gpt2x's own model, relative to the largest of the latter."""
    c = subject.c
    unmade = [each for each in explained if each.mistake is None]
    given = {each.check.site: each.right_input for each in unmade if each.right_input is not None}
    replaced = [each.site for each in unmade if each.site in c.record.outputs and not each.random]
    repaired = replace(subject.replacing(*replaced), given=given)
    if any(each.random for each in explained):
        repaired = replace(repaired, dropout=False)
    actual = repaired.logits()
    modules = {site: module_at(subject.own, whole_site(site)[0]) for site in given}
    logits: list[Tensor] = []
    if not explained:
        return distance(actual, c.record.logits)
    with made([each.mistake for each in shown_with(explained, replaced) if each.mistake is not None]):
        trace(lambda: logits.append(subject.own(torch.tensor([c.record.facts.ids]))), modules, given)
    return distance(actual, logits[0][0])
