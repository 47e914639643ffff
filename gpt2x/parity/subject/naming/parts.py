"""The parts of a GPT-2 of unknown make: which of its tensors are in a layer, and what each of them is by its shape."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gpt2x.parity.subject.naming.words import BIASES, WEIGHTS

_OF_NORMS = (["weight"], ["bias", "weight"])
"""What the parameters of a norm are."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of the reference, which tell its tensors apart."""

    V: int
    P: int
    """n_positions."""
    C: int
    inner: int
    """The width between the two matrices of the MLP."""
    n_layer: int

    @classmethod
    def of(cls, shapes: Mapping[str, torch.Size]) -> "Sizes":
        """From the shapes of the reference's tensors, under Hugging Face's names less `transformer.`."""
        V, C = shapes["wte.weight"]
        layers = {name.split(".")[1] for name in shapes if name.startswith("h.")}
        return cls(V, shapes["wpe.weight"][0], C, shapes["h.0.mlp.c_fc.weight"][1], len(layers))


@dataclass
class Part:
    """The parameters that one module holds itself."""

    path: str
    """The module's name; empty for the model itself. In a layer, the name less that of the layer."""
    module: nn.Module
    shapes: dict[str, torch.Size]
    """Name -> shape, without dimensions of size 1."""

    def matrix(self, *sizes: int) -> str | None:
        """The name of the only tensor of these sizes, in either order, or None."""
        found = [name for name, shape in self.shapes.items() if sorted(shape) == sorted(sizes)]
        return found[0] if len(found) == 1 else None

    def norm(self, C: int) -> dict[str, str] | None:
        """Own name -> `weight` or `bias`, if all that the module holds are those of a norm.

        Names that do not tell are told apart by the values that a new norm has, ones and zeros.
        """
        if not self.shapes or any(shape != (C,) for shape in self.shapes.values()):
            return None
        values = {own: value for own, value in self.module.named_parameters(recurse=False) if own in self.shapes}
        by_name = {own: _leaf(own) for own in values}
        by_value = {own: _of_new_norm(value) for own, value in values.items()}
        return next((named for named in (by_name, by_value) if sorted(named.values()) in _OF_NORMS), None)

    def outputs(self, matrix: str) -> int | None:
        """The number of outputs of a matrix that is not square, where the layer or the bias says which it is."""
        out = getattr(self.module, "out_features", None)
        if out is None:
            out = next((shape[0] for shape in self.shapes.values() if len(shape) == 1), None)
        return out if out in self.shapes[matrix] else None

    def bias_of(self, matrix: str) -> str | None:
        """The only other tensor; or the one whose name is the matrix's but for weight or W: in_proj_bias, b_Q."""
        others = [name for name in self.shapes if name != matrix]
        if len(others) == 1 and len(self.shapes[others[0]]) == 1:
            return others[0]
        names = (re.sub(old, new, matrix) for old, new in (("weight", "bias"), ("^W", "b"), ("^w", "b")))
        return next((name for name in names if name in others), None)


def _leaf(own: str) -> str:
    return "weight" if own.lower() in WEIGHTS else "bias" if own.lower() in BIASES else own


def _of_new_norm(value: Tensor) -> str:
    return "weight" if bool((value == 1).all()) else "bias" if bool((value == 0).all()) else ""


@dataclass
class Layers:
    """The layers of a model: those modules, or those names, that end in a number and have equal parts."""

    prefix: str
    """`blocks.` of blocks.0, or `block_` of block_0."""
    first: int
    """The number of the first layer."""
    parts: list[Part] = field(default_factory=list)
    """The parts of the first layer, in the order in which they are defined."""


def parts_of(model: nn.Module) -> list[Part]:
    """Each module that has parameters of its own, in the order of definition, under the first of its names."""
    found = []
    for path, module in model.named_modules():
        shapes = {name: parameter.squeeze().shape for name, parameter in module.named_parameters(recurse=False)}
        if shapes:
            found.append(Part(path, module, shapes))
    return found


def layers_of(parts: Iterable[Part], n_layer: int) -> Layers | None:
    """The layers: the shortest numbered name that has n_layer numbers and equal parts under each of them."""
    families: dict[str, dict[int, list[Part]]] = {}
    for part in parts:
        for match in re.finditer(r"(?<=[._a-zA-Z])(\d+)(?=\.|$)|^\d+(?=\.|$)", part.path):
            rest = part.path[match.end() :].removeprefix(".")
            numbered = families.setdefault(part.path[: match.start()], {})
            numbered.setdefault(int(match[0]), []).append(Part(rest, part.module, part.shapes))
    for prefix in sorted(families, key=len):
        numbered = families[prefix]
        alike = {tuple((part.path, *part.shapes.items()) for part in each) for each in numbered.values()}
        first = min(numbered)
        if len(numbered) == n_layer and len(alike) == 1 and max(numbered) - first == n_layer - 1:
            return Layers(prefix, first, numbered[first])
    return None
