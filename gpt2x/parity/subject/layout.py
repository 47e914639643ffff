"""How a subject stores its parameters, and how they are brought into Hugging Face's layout.

Hugging Face's GPT-2 stores the weights of c_attn, c_proj and c_fc as [in, out] (Conv1D). A subject may store them
as [out, in] (nn.Linear), may have three projections in place of c_attn, or one per head, and may store the heads along
a dimension of their own.
"""

from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache

import torch
from torch import Tensor, nn

from gpt2x.checkpoints.names import is_conv1d
from gpt2x.memory import is_out_of_memory
from gpt2x.parity.subject.names import HEAD, QKV, Portion, whole_tensor
from gpt2x.parity.subject.products import multiplied_transposed
from gpt2x.parity.subject.requests import own_requests

_ROWS = 8  # enough to tell two products apart


class Layout:
    """The layout of a subject's parameters, all of them under Hugging Face's names."""

    def __init__(
        self,
        shapes: Mapping[str, torch.Size],
        parameters: Mapping[str, nn.Parameter],
        sites: Mapping[str, nn.Module],
        run: Callable[[], object],
    ) -> None:
        """`shapes` are those of the oracle's tensors, in Hugging Face's layout; `sites` are the subject's modules.

        `run` runs the model on any ids.
        """
        self._shapes = shapes
        self._parameters = parameters
        self._sites = sites
        self._run = run
        self._transposed = {name for name in parameters if self._is_transposed(name)}

    def expected_shape(self, name: str) -> torch.Size | None:
        """The shape in Hugging Face's layout of a parameter; None if the oracle has none of this name."""
        whole, portion = whole_tensor(name)
        shape = self._shapes.get("wte.weight" if name == HEAD else whole)
        return torch.Size([*shape[:-1], shape[-1] // (3 * portion.heads)]) if shape and portion else shape

    def to_hf(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor in the subject's layout -> the same in Hugging Face's."""
        shape, axes = self.expected_shape(name), self._axes(name)
        if shape and axes:
            return tensor.permute(axes).reshape(shape)
        tensor = tensor.t() if name in self._transposed else tensor
        fits = shape and (tensor.squeeze().shape == shape or (len(shape) == 1 and tensor.numel() == shape[0]))
        return tensor.reshape(shape) if shape and fits else tensor

    def all_to_hf(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by name, in Hugging Face's layout; three projections joined to c_attn, the head left out."""
        named = {name: self.to_hf(name, tensor) for name, tensor in tensors.items() if name != HEAD}
        portions: dict[str, dict[Portion, str]] = {}
        for name in named:
            whole, portion = whole_tensor(name)
            if portion is not None:
                portions.setdefault(whole, {})[portion] = name
        for whole, parts in portions.items():
            if len(parts) == len(QKV) * min(parts).heads:
                named[whole] = torch.cat([named.pop(parts[portion]) for portion in sorted(parts)], dim=-1)
        return named

    def from_hf(self, name: str, tensors: Mapping[str, Tensor]) -> Tensor | None:
        """The value of one parameter, in the subject's layout, from tensors in Hugging Face's.

        None if they hold no such tensor, or one of another shape.
        """
        whole, portion = whole_tensor(name)
        source = tensors.get("wte.weight" if name == HEAD else whole)
        if source is None:
            return None
        source = source if portion is None else portion.of(source)
        parameter, axes = self._parameters[name], self._axes(name)
        if axes:
            inverse = [axes.index(axis) for axis in range(len(axes))]
            return source.reshape([parameter.shape[axis] for axis in axes]).permute(inverse)
        source = source.t() if name in self._transposed else source
        fits = source.squeeze().shape == parameter.squeeze().shape or (
            source.ndim == 1 and source.numel() == parameter.numel()
        )
        return source.reshape(parameter.shape) if fits else None

    def _axes(self, name: str) -> list[int] | None:
        """The order of the dimensions in Hugging Face's layout, for a matrix that is stored as [H, C, D] or the like.

        None for other tensors.
        """
        shape, own = self.expected_shape(name), self._parameters[name].shape
        if shape is None or len(shape) != 2 or len(own) != 3 or 1 in own or own.numel() != shape.numel():
            return None
        by_inputs = ".c_attn." in name  # the heads are among the outputs; those of c_proj are among the inputs
        width = shape[0] if by_inputs else shape[1]
        if own.count(width) != 1:
            return None
        whole = list(own).index(width)
        heads = [axis for axis in range(3) if axis != whole]
        return [whole, *heads] if by_inputs else [*heads, whole]

    def _is_transposed(self, name: str) -> bool:
        """Whether the subject stores a matrix transposed, compared with Hugging Face."""
        shape, own = self.expected_shape(name), self._parameters[name].shape
        if shape is None or len(own) != 2 or own != shape[::-1]:
            return False
        if own != shape:
            return True
        return is_conv1d(whole_tensor(name)[0]) and self._multiplies_transposed(name)

    def _multiplies_transposed(self, name: str) -> bool:
        """Whether the module of a square matrix, whose shape tells nothing, computes x W^T, as nn.Linear does.

        If the parameter belongs to no layer that can be called alone, the products of a run decide, and if they are
        not those of the matrix itself, the subject's other matrices.
        """
        layer, parameter = self._sites.get(name.rpartition(".")[0]), self._parameters[name]
        if layer is not None and not list(layer.children()):
            own = parameter.data
            # Random values: with its own, which may be zeros or symmetric, both products could be the same.
            weight, x = (noise.to(own) for noise in _noise(len(own)))
            with torch.no_grad(), own_requests(own.dtype, own.device):
                try:
                    parameter.data = weight
                    y = layer(x) - layer(torch.zeros_like(x))
                except Exception as error:  # not a layer that takes one tensor: both differences below are then large
                    if is_out_of_memory(error):
                        raise
                    y = x
                finally:
                    parameter.data = own
            linear, conv1d = (y - x @ weight.t()).abs().max(), (y - x @ weight).abs().max()
            if min(linear, conv1d) < 1e-2 * max(linear, conv1d):
                return bool(linear < conv1d)
        if name in self._seen:
            return self._seen[name]
        others = [
            parameter.shape == (self.expected_shape(other) or torch.Size())[::-1]
            for other, parameter in self._parameters.items()
            if is_conv1d(other) and parameter.ndim == 2 and parameter.shape[0] != parameter.shape[1]
        ]
        return sum(others) * 2 >= len(others)

    @cached_property
    def _seen(self) -> dict[str, bool]:
        """Name of a parameter -> whether a run multiplies with it transposed; empty if the run fails."""
        try:
            return multiplied_transposed(self._parameters, self._run)
        except Exception as error:  # the subject's own code: it is reported when the model is called for its logits
            if is_out_of_memory(error):
                raise
            return {}


@lru_cache(maxsize=1)
def _noise(n: int) -> tuple[Tensor, Tensor]:
    """A random matrix [n, n], and random rows for it to multiply, [1, _ROWS, n]: the same ones for every layer."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(n, n, generator=generator, dtype=torch.float32)
    return weight, torch.randn(1, _ROWS, n, generator=generator, dtype=torch.float32)
