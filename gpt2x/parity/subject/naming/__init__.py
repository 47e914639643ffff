"""Hugging Face's names for the parts of a model that has other names, by what is certain: shapes, types and order.

A part is given a name only where no other part could have it. What remains keeps its own name, and the stage weights
reports it.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from gpt2x.parity.subject.code import SubjectError
from gpt2x.parity.subject.module import Subject
from gpt2x.parity.subject.names import hf_name
from gpt2x.parity.subject.naming.parts import Layers, Part, Sizes, layers_of, parts_of
from gpt2x.parity.subject.naming.words import norm_of, projection

Rules = list[list[str]]
"""Pairs [regex, replacement], as subject.rename takes them."""
_ACTIVATION = re.compile("gelu|relu|silu|swish|tanh|sigmoid|activation", re.IGNORECASE)


def rules_by_structure(model: nn.Module, shapes: Mapping[str, torch.Size]) -> Rules:
    """The rules that give the parts Hugging Face's names; none where all matrices and norms have theirs already.

    `shapes` are those of the reference's tensors, under Hugging Face's names less `transformer.`.
    """
    sizes = Sizes.of(shapes)
    own = {hf_name(name, []): each.shape for name, each in model.named_parameters(remove_duplicate=False)}
    has_other_norms = any(shape == (sizes.C,) for name, shape in own.items() if name not in shapes)
    if not has_other_norms and all(name in own for name, shape in shapes.items() if len(shape) == 2):
        return []
    parts = parts_of(model)
    layers = layers_of(parts, sizes.n_layer)
    if layers is None:
        return []
    outside = [part for part in parts if not re.match(rf"{re.escape(layers.prefix)}\d+(\.|$)", part.path)]
    rules = _Rules("", "")
    _outside(outside, sizes, rules)
    numbered = re.escape(layers.prefix)
    counted = [[rf"^{numbered}{layers.first + i}\b", f"h.{i}"] for i in range(sizes.n_layer) if layers.first]
    inside = _Rules(r"h\.(\d+)" if counted else rf"{numbered}(\d+)", r"h.\1")
    _layer(model, shapes, layers, inside)
    return rules.pairs + counted + inside.pairs + [[rf"^{inside.own}\b", inside.name]] * (not counted)


class _Rules:
    """Rules for the parts of one layer, or for those outside of all layers."""

    def __init__(self, own: str, name: str) -> None:
        self.own, self.name = own, name
        self.pairs: Rules = []

    def module(self, path: str, site: str) -> None:
        """The module at `path`, and all in it, is at `site`."""
        self.pairs.append([rf"^{self._own(path)}\b", self._name(site)])

    def tensor(self, part: Part, own: str, site: str) -> None:
        """A tensor that a module holds is `site`."""
        path = f"{part.path}.{own}" if part.path else own
        self.pairs.append([f"^{self._own(path)}$", self._name(site)])

    def part(self, part: Part, site: str, tensors: Mapping[str, str]) -> None:
        """A module that is the site, and those of its tensors that have other names: own name -> name."""
        for own, name in tensors.items():
            if own != name:
                self.tensor(part, own, f"{site}.{name}")
        self.module(part.path, site)

    def numbered(self, stem: str, site: str, n: int) -> None:
        """Modules for each of n heads, whose number is at the {} of the stem."""
        before, _, after = (re.escape(each) for each in stem.partition("{}"))
        own = rf"{self.own}\.{before}(\d+){after}"
        self.pairs.append([rf"^{own}\b", rf"{self.name}.{site}.\2_of_{n}"])

    def _own(self, path: str) -> str:
        return rf"{self.own}\.{re.escape(path)}" if self.own else re.escape(path)

    def _name(self, site: str) -> str:
        return f"{self.name}.{site}" if self.name else site


def _outside(parts: list[Part], sizes: Sizes, rules: _Rules) -> None:
    """wte, wpe, ln_f and lm_head."""
    tables = [(part, own) for part in parts if (own := part.matrix(sizes.V, sizes.C))]
    heads = [each for each in tables if isinstance(each[0].module, nn.Linear)]
    others = [each for each in tables if each not in heads]
    others.sort(key=lambda each: not isinstance(each[0].module, nn.Embedding))
    heads = [(part, own) for part, own in heads if part.outputs(own) == sizes.V] or others[1:]
    if others:
        _table(*others[0], "wte", rules)
    if heads:
        said = [each for each in heads if hf_name(each[0].path, []) == "lm_head"]
        _table(*(said or heads)[-1], "lm_head", rules)
    loose = [part for part in parts if sizes.P != sizes.V and not isinstance(part.module, nn.Linear)]
    positions = [(part, own) for part in loose if (own := part.matrix(sizes.P, sizes.C))]
    if len(positions) == 1:
        _table(*positions[0], "wpe", rules)
    norms = [(part, named) for part in parts if (named := part.norm(sizes.C)) is not None]
    if norms:
        rules.part(norms[-1][0], "ln_f", norms[-1][1])


def _table(part: Part, own: str, site: str, rules: _Rules) -> None:
    """A matrix that its module holds alone, or one among several tensors of a module."""
    if part.path and set(part.shapes) <= {own, "bias"}:
        rules.part(part, site, {own: "weight"})
    else:
        rules.tensor(part, own, f"{site}.weight")


def _layer(model: nn.Module, shapes: Mapping[str, torch.Size], layers: Layers, rules: _Rules) -> None:
    """What is in a layer."""
    sizes = Sizes.of(shapes)
    attention = _attention(layers.parts, sizes, rules)
    mlp = _mlp(layers.parts, sizes, rules)
    norms = [
        (part, named)
        for part in layers.parts
        if (named := part.norm(sizes.C)) is not None and not projection(part.path)  # of queries and keys, for example
    ]
    if len(norms) > 2:  # one within attention or the MLP is not the layer's
        inside = [container for container in map(_common, (attention, mlp)) if container]
        norms = [(part, named) for part, named in norms if not part.path.startswith(tuple(f"{c}." for c in inside))]
    projections = [model.get_submodule(f"{layers.prefix}{layers.first}.{path}") for path in attention[:1]]
    for number, (part, named) in zip(
        _order(model, shapes, [part for part, _ in norms], projections), norms, strict=False
    ):
        rules.part(part, f"ln_{number}", named)
    for paths, site in ((attention, "attn"), (mlp, "mlp")):
        container = _common(paths)
        if not container:
            continue
        activation = _activation(model.get_submodule(f"{layers.prefix}{layers.first}.{container}"))
        if site == "mlp" and activation:
            rules.module(f"{container}.{activation}", "mlp.act")
        rules.module(container, site)


def _order(
    model: nn.Module, shapes: Mapping[str, torch.Size], norms: list[Part], projections: list[nn.Module]
) -> tuple[int, ...]:
    """The numbers of a layer's norms, by when they are executed; of one that is, beside attention, only without a name.

    Hugging Face's own names stay. None where that does not tell.
    """
    modules, paths = [part.module for part in norms], [part.path for part in norms]
    numbers = tuple(norm_of(path) or 0 for path in paths)
    said = numbers if sorted(numbers) == [1, 2] else ()
    if sorted(paths) == ["ln_1", "ln_2"]:
        return said
    executed = _executed(model, shapes, [*modules, *projections]) if len(norms) in (1, 2) else []
    called = [module for module in executed if module in modules]
    comes_first = len(executed) == 2 and len(called) == 1 and called[0] is executed[0]
    if len(norms) == 1:
        return (1,) if comes_first else ()
    if len(called) == 2:
        return (1, 2) if called == modules else (2, 1)
    if said:
        return said
    if called and projections:  # also where attention is not executed: the norm is then that of the MLP
        return (1, 2) if comes_first == (called[0] is modules[0]) else (2, 1)
    return ()


def _attention(parts: list[Part], sizes: Sizes, rules: _Rules) -> list[str]:
    """c_attn, or its three thirds, and c_proj; returns the paths of their modules."""
    C = sizes.C
    heads = _heads(parts, C, rules)
    fused = [(part, own) for part in parts if (own := part.matrix(C, 3 * C))]
    square = [(part, own) for part in parts for own, shape in part.shapes.items() if _is_square(shape, C)]
    found = {}
    for part, own in square:
        third = projection(f"{part.path}.{own}")
        if third:
            found[f"attn.c_attn.{third}"] = part, own
    if not found and len(fused) == 1:
        found["attn.c_attn"] = fused[0]
    n_projections = 0 if heads else len(found)
    rest = [each for each in square if each not in found.values()]
    if len(rest) == 1:
        found["attn.c_proj"] = rest[0]
    if "attn.c_proj" not in found or n_projections not in ((0,) if heads else (1, 3)):
        return []
    for site, (part, own) in found.items():
        _linear(part, own, site, rules)
    return heads + [part.path for part, _ in found.values()]


def _is_square(shape: torch.Size, C: int) -> bool:
    """[C, C], or with the heads along a dimension of their own."""
    return shape.numel() == C * C and C in shape


def _heads(parts: list[Part], C: int, rules: _Rules) -> list[str]:
    """The projections of single heads, such as heads.0.key; returns the paths of their modules."""
    families: dict[str, dict[str, list[str]]] = {"q": {}, "k": {}, "v": {}}
    for part in parts:
        third, number = projection(part.path), re.search(r"(?<![^._])\d+(?![^._])", part.path)
        small = [shape for shape in part.shapes.values() if len(shape) == 2 and C in shape and shape.numel() < C * C]
        if third and number and len(small) == 1:
            stem = f"{part.path[: number.start()]}{{}}{part.path[number.end() :]}"
            families[third].setdefault(stem, []).append(part.path)
    found = {third: next(iter(family.items())) for third, family in families.items() if len(family) == 1}
    n = len(found["q"][1]) if "q" in found else 0
    if len(found) != len(families) or n < 2 or any(len(paths) != n for _, paths in found.values()) or C % n:
        return []
    for third, (stem, _) in found.items():
        rules.numbered(stem, f"attn.c_attn.{third}", n)
    return [path for _, paths in found.values() for path in paths]


def _mlp(parts: list[Part], sizes: Sizes, rules: _Rules) -> list[str]:
    """mlp.c_fc and mlp.c_proj; returns the paths of their modules."""
    both = [
        (part, own) for part in parts for own, shape in part.shapes.items() if sorted(shape) == [sizes.C, sizes.inner]
    ]
    if len(both) != 2:
        return []
    outputs = [part.outputs(own) for part, own in both]
    if outputs == [sizes.C, sizes.inner]:
        both.reverse()
    for (part, own), site in zip(both, ("mlp.c_fc", "mlp.c_proj"), strict=True):
        _linear(part, own, site, rules)
    return [part.path for part, _ in both]


def _linear(part: Part, own: str, site: str, rules: _Rules) -> None:
    """A matrix and its bias."""
    bias = part.bias_of(own)
    if part.path and set(part.shapes) == {own, bias} - {None} and not list(part.module.children()):
        rules.part(part, site, {own: "weight"} | ({bias: "bias"} if bias else {}))
        return
    rules.tensor(part, own, f"{site}.weight")
    if bias:
        rules.tensor(part, bias, f"{site}.bias")


def _activation(mlp: nn.Module) -> str | None:
    """The path of the only module in an MLP that is an activation by its type and has no parameters."""
    found = [
        path
        for path, module in mlp.named_modules()
        if path and _ACTIVATION.search(type(module).__name__) and next(module.parameters(), None) is None
    ]
    return found[0] if len(found) == 1 else None


def _common(paths: list[str]) -> str:
    """The module that contains all of these paths, below the layer; empty if only the layer does."""
    if not paths:
        return ""
    split = [path.split(".") for path in paths]
    depth = 0
    while all(len(path) > depth + 1 for path in split) and len({path[depth] for path in split}) == 1:
        depth += 1
    same = len(set(paths)) == 1
    return paths[0] if same else ".".join(split[0][:depth])


@torch.no_grad()
def _executed(model: nn.Module, shapes: Mapping[str, torch.Size], modules: list[nn.Module]) -> list[nn.Module]:
    """Those of the modules that a pass over two tokens enters, in this order."""
    entered: list[nn.Module] = []

    def hook(module: nn.Module, args: Any) -> None:
        if module not in entered:
            entered.append(module)

    handles = [module.register_forward_pre_hook(hook) for module in modules]
    device = next(model.parameters()).device
    try:
        Subject("", model, shapes, []).logits(torch.zeros(1, 2, dtype=torch.long, device=device))
    except SubjectError:  # its answer does not matter here
        pass
    finally:
        for handle in handles:
            handle.remove()
    return entered
