"""A model of unknown make, seen as a GPT-2: modules and tensors under Hugging Face's names, and logits."""

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gpt2x.checkpoints.names import is_conv1d
from gpt2x.errors import UserError
from gpt2x.parity.subject.target import SubjectError, subject_code

HEAD = "lm_head.weight"
QKV = ("q", "k", "v")
# What a model that only answers for the last position calls the argument with which it answers for all.
_TARGETS = ("targets", "target", "labels", "y")


class Subject:
    """Modules (`sites`) and parameters by Hugging Face's names, less the `transformer.` in front.

    A query, key or value projection of its own is `h.N.attn.c_attn.q`, `.k` or `.v`: a third of c_attn.
    Raises UserError if `rename` gives two parameters one name.
    """

    def __init__(self, name: str, module: nn.Module, shapes: dict[str, torch.Size], rename: list[list[str]]) -> None:
        """`shapes` are the reference's tensors, in its layout ([in, out] for Conv1D)."""
        self.name = name
        self.module = module.eval()
        self.shapes = shapes
        self.sites = {hf_name(own, rename): part for own, part in module.named_modules() if own}
        self.changes_input = False
        self._all_positions: str | None = None
        self.parameters: dict[str, nn.Parameter] = {}
        own_names: dict[str, str] = {}
        for own, parameter in module.named_parameters(remove_duplicate=False):
            site = hf_name(own, rename)
            if site in self.parameters and self.parameters[site] is not parameter:
                raise UserError(f"subject.rename makes both {own_names[site]} and {own} to {site}")
            self.parameters[site] = parameter
            own_names[site] = own
        self._transposed = {name for name in self.parameters if self._is_transposed(name)}

    @property
    def n_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.module.parameters())

    @property
    def untied_head(self) -> nn.Parameter | None:
        """The head's weight where it is a parameter beside wte's."""
        head = self.parameters.get(HEAD)
        return None if head is self.parameters.get("wte.weight") else head

    def unexpected(self) -> list[str]:
        """Parameters that no name of Hugging Face's fits."""
        return [name for name in self.parameters if self._expected_shape(name) is None]

    def tensors(self) -> dict[str, Tensor]:
        """Its parameters in Hugging Face's layout, three projections joined to one, the head left out."""
        return self._joined({name: parameter.detach() for name, parameter in self.parameters.items()})

    def in_layout(self, name: str) -> Tensor:
        """One parameter in Hugging Face's layout."""
        return self._turned(name, self.parameters[name].detach())

    def gradients(self) -> dict[str, Tensor]:
        """As tensors(), of what has a gradient; an untied head's is added to wte's, as tying would."""
        grads = {name: parameter.grad for name, parameter in self.parameters.items() if parameter.grad is not None}
        if self.untied_head is not None and HEAD in grads and "wte.weight" in grads:
            grads["wte.weight"] = grads["wte.weight"] + self._turned(HEAD, grads[HEAD])
        return self._joined(grads)

    @torch.no_grad()
    def copy_from(self, tensors: dict[str, Tensor]) -> None:
        """Takes over the reference's tensors, wherever names and shapes agree."""
        for name, parameter in self.parameters.items():
            whole, third = whole_tensor(name)
            source = tensors.get("wte.weight" if name == HEAD else whole)
            if source is not None:
                source = source if third is None else source.chunk(3, dim=-1)[third]
                source = source.t() if name in self._transposed else source
                if source.squeeze().shape == parameter.squeeze().shape:
                    parameter.copy_(source.reshape(parameter.shape))

    def logits(self, input_ids: Tensor) -> Tensor:
        """input_ids [B, T] -> logits [B, T, V]. Raises SubjectError if it fails or answers with something else."""
        B, T = input_ids.shape
        ids = input_ids.clone()
        with subject_code(), float32_is_float64(next(self.module.parameters()).dtype):
            logits = first_tensor(self._call(ids, input_ids))
            if logits is None:
                raise SubjectError("answers without logits: neither a tensor, nor a tuple, nor anything with .logits")
            if T > 1 and logits.ndim and logits.numel() == B * logits.shape[-1]:  # the last position only
                takes = inspect.signature(self.module.forward).parameters
                self._all_positions = next((name for name in _TARGETS if name in takes), None)
                logits = first_tensor(self._call(ids, input_ids))
        self.changes_input |= not torch.equal(ids, input_ids)
        V = self.shapes["wte.weight"][0]
        if logits is not None and not (logits.is_floating_point() and logits.layout == torch.strided):
            raise SubjectError(f"answers with {logits.layout} {logits.dtype}, not with plain floats")
        if logits is None or logits.shape not in ((B, T, V), (B * T, V)):
            shape = None if logits is None else list(logits.shape)
            raise SubjectError(f"answers with the shape {shape} to ids of the shape {[B, T]}, not {[B, T, V]}")
        return logits.reshape(B, T, V)

    def _call(self, ids: Tensor, targets: Tensor) -> Any:
        named = {self._all_positions: targets.clone()} if self._all_positions else {}
        first = next(iter(inspect.signature(self.module.forward).parameters.values()), None)
        if first is not None and first.kind == first.KEYWORD_ONLY:
            return self.module(**{first.name: ids}, **named)
        return self.module(ids, **named)

    def _expected_shape(self, name: str) -> torch.Size | None:
        """The reference's shape of a tensor; None where it has none of this name."""
        whole, third = whole_tensor(name)
        shape = self.shapes.get("wte.weight" if name == HEAD else whole)
        return torch.Size([*shape[:-1], shape[-1] // 3]) if shape and third is not None else shape

    def _is_transposed(self, name: str) -> bool:
        """Whether the subject keeps a matrix the other way round than Hugging Face does."""
        shape, own = self._expected_shape(name), self.parameters[name].shape
        if shape is None or len(own) != 2 or own != shape[::-1]:
            return False
        if own != shape:
            return True
        return is_conv1d(whole_tensor(name)[0]) and self._multiplies_transposed(name)

    def _multiplies_transposed(self, name: str) -> bool:
        """For a square matrix, whose shape tells nothing: whether its module computes x W^T, as nn.Linear does.

        A parameter outside a module for itself goes by the subject's other matrices.
        """
        layer, parameter = self.sites.get(name.rpartition(".")[0]), self.parameters[name]
        if layer is not None and not list(layer.children()):
            own = parameter.data
            # Of its own it may have zeros, or as much of one as of the other.
            noise = torch.randn(3, *own.shape, generator=torch.Generator().manual_seed(0)).to(own)
            weight, x = noise[0], noise[1:].view(1, -1, len(own))
            with torch.no_grad(), float32_is_float64(own.dtype):
                try:
                    parameter.data = weight
                    y = layer(x) - layer(torch.zeros_like(x))
                except Exception:  # not a layer of one argument: to be judged by the others
                    y = x
                finally:
                    parameter.data = own
            linear, conv1d = (y - x @ weight.t()).abs().max(), (y - x @ weight).abs().max()
            if min(linear, conv1d) < 1e-2 * max(linear, conv1d):
                return bool(linear < conv1d)
        others = [
            parameter.shape == (self._expected_shape(other) or torch.Size())[::-1]
            for other, parameter in self.parameters.items()
            if is_conv1d(other) and parameter.ndim == 2 and parameter.shape[0] != parameter.shape[1]
        ]
        return sum(others) * 2 >= len(others)

    def _turned(self, name: str, tensor: Tensor) -> Tensor:
        tensor, shape = tensor.t() if name in self._transposed else tensor, self._expected_shape(name)
        return tensor.reshape(shape) if shape and tensor.squeeze().shape == shape else tensor

    def _joined(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        named = {name: self._turned(name, tensor) for name, tensor in tensors.items() if name != HEAD}
        thirds: dict[str, dict[int, str]] = {}
        for name in named:
            whole, third = whole_tensor(name)
            if third is not None:
                thirds.setdefault(whole, {})[third] = name
        for whole, parts in thirds.items():
            if len(parts) == len(QKV):
                named[whole] = torch.cat([named.pop(parts[third]) for third in range(len(QKV))], dim=-1)
        return named


def hf_name(own: str, rename: list[list[str]]) -> str:
    own = own.replace("_orig_mod.", "").removeprefix("module.")  # of torch.compile and DataParallel
    for pattern, replacement in rename:
        try:
            own = re.sub(pattern, replacement, own)
        except re.error as error:
            raise UserError(f"subject.rename: [{pattern}, {replacement}] on {own}: {error}") from None
    return own.removeprefix("transformer.")


def whole_tensor(name: str) -> tuple[str, int | None]:
    """`h.0.attn.c_attn.weight` and 1, of `h.0.attn.c_attn.k.weight`; of any other name itself and None."""
    module, dot, leaf = name.rpartition(".")
    whole, third = whole_site(module)
    return f"{whole}{dot}{leaf}", third


def whole_site(site: str) -> tuple[str, int | None]:
    """`h.0.attn.c_attn` and 1, of `h.0.attn.c_attn.k`; of any other site itself and None."""
    whole, _, part = site.rpartition(".")
    return (whole, QKV.index(part)) if whole.endswith("c_attn") and part in QKV else (site, None)


def first_tensor(output: Any) -> Tensor | None:
    """What a model or a module answers with: a tensor, the first of several, or what is called logits."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, dict) and "logits" in output:
        return output["logits"]
    if hasattr(output, "logits"):
        return output.logits
    if isinstance(output, (tuple, list)) and output:
        return first_tensor(output[0])
    return None


@contextmanager
def float32_is_float64(dtype: torch.dtype) -> Iterator[None]:
    """In float64, code that asks for float32 (a softmax or a norm 'in full precision', a constant) gets float64."""
    with default_dtype(dtype), _Float64() if dtype == torch.float64 else nullcontext():
        yield


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """In float64, constants and parameters that are made without a dtype are float64; else float32, as ever."""
    torch.set_default_dtype(torch.float64 if dtype == torch.float64 else torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


class _Float64(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.frombuffer, torch.Tensor.view):  # there a dtype says what the bytes are
            return func(*args, **(kwargs or {}))
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        args = tuple(torch.float64 if argument is torch.float32 else argument for argument in args)
        kwargs = {
            key: torch.float64 if argument is torch.float32 else argument for key, argument in (kwargs or {}).items()
        }
        return func(*args, **kwargs)
