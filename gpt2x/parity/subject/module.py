"""A model of unknown make, seen as a GPT-2: modules and tensors under Hugging Face's names, and logits."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2x.checkpoints.names import dtype_name
from gpt2x.errors import UserError
from gpt2x.parity.subject.calling import Caller
from gpt2x.parity.subject.code import SubjectError
from gpt2x.parity.subject.layout import Layout
from gpt2x.parity.subject.names import HEAD, hf_name, unused_rules, whole_tensor
from gpt2x.parity.subject.requests import own_requests

_OF_DTYPES = re.compile(r"dtype|scalar type|BFloat16|Half|Double")  # in the text of torch's errors


class Subject:
    """A model whose modules (`sites`) and parameters have Hugging Face's names, less the `transformer.` in front."""

    def __init__(self, name: str, module: nn.Module, shapes: Mapping[str, torch.Size], rename: list[list[str]]) -> None:
        """`shapes` are those of the oracle's tensors, in its layout ([in, out] for Conv1D).

        Raises UserError if `rename` gives two parameters the same name.
        """
        self.name = name
        self.module = module.eval()
        self.shapes = shapes
        self.sites = {hf_name(own, rename): part for own, part in module.named_modules() if own}
        self.parameters: dict[str, nn.Parameter] = {}
        self.changes_input = False
        """Whether a call has changed the ids that it was given."""
        self.named_by_structure: list[list[str]] = []
        """The rules by which parts that the user gave no name to have theirs."""
        self.cut = ""
        """What was done to tables that are padded; empty if none is."""
        n_layer = len({site.split(".")[1] for site in shapes if site.startswith("h.")})
        self._caller = Caller(module, shapes["wpe.weight"][0], shapes["wte.weight"][0], n_layer)
        self._narrow_is_wide = False
        """Whether 16-bit floats that the code asks for by itself are taken as the dtype of the parameters."""
        self.answers_hidden = False
        """Whether the model answers with hidden states, to which its head has to be applied."""
        own_names: dict[str, str] = {}
        for own, parameter in module.named_parameters(remove_duplicate=False):
            site = hf_name(own, rename)
            if site in self.parameters and self.parameters[site] is not parameter:
                raise UserError(f"subject.rename makes both {own_names[site]} and {own} to {site}")
            self.parameters[site] = parameter
            own_names[site] = own
        modules = (own for own, _ in module.named_modules())
        self._unused = unused_rules([*own_names.values(), *modules], rename)
        for site in _other_names(self.parameters, shapes):
            del self.parameters[site]
        self._layout = Layout(shapes, self.parameters, self.sites, self._run)

    @property
    def notes(self) -> list[str]:
        """What the user should know about how it is called and named, one line each."""
        dtype = dtype_name(next(self.module.parameters()).dtype)
        return [
            *([self.cut] if self.cut else []),
            *self._caller.notes,
            *(["answers with hidden states, to which gpt2x applies the head"] if self.answers_hidden else []),
            *([f"asks for 16-bit floats by itself, which were taken as {dtype}"] if self._narrow_is_wide else []),
            *(f"subject.rename: {pattern!r} matches none of its names" for pattern, _ in self._unused),
        ]

    @property
    def length(self) -> int | None:
        """The only number of ids that the model accepts; None if that is not known to be so."""
        return self._caller.length

    @property
    def n_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.module.parameters())

    @property
    def untied_head(self) -> nn.Parameter | None:
        """The head's weight if it is another parameter than wte's; otherwise None."""
        head = self.parameters.get(HEAD)
        return None if head is self.parameters.get("wte.weight") else head

    def unexpected(self) -> list[str]:
        """Names of parameters that the oracle does not have; the first name of one that has several."""
        named = {id(p): name for name, p in reversed(self.parameters.items()) if not self._layout.expected_shape(name)}
        return [name for name in self.parameters if name in named.values()]

    def tensors(self) -> dict[str, Tensor]:
        """The parameters in Hugging Face's layout, three projections joined to one, the head left out."""
        return self._layout.all_to_hf({name: parameter.detach() for name, parameter in self.parameters.items()})

    def in_layout(self, name: str) -> Tensor:
        """One parameter in Hugging Face's layout."""
        return self._layout.to_hf(name, self.parameters[name].detach())

    def gradients(self) -> dict[str, Tensor]:
        """Gradients, named and laid out like tensors(); that of an untied head is added to wte's, as tying would."""
        grads = {name: parameter.grad for name, parameter in self.parameters.items() if parameter.grad is not None}
        if self.untied_head is not None and HEAD in grads and "wte.weight" in grads:
            grads["wte.weight"] = grads["wte.weight"] + self._layout.to_hf(HEAD, grads[HEAD])
        return self._layout.all_to_hf(grads)

    @torch.no_grad()
    def copy_from(self, tensors: Mapping[str, Tensor]) -> None:
        """Copies the oracle's tensors into every parameter whose name and shape fit."""
        for name, parameter in self.parameters.items():
            value = self._layout.from_hf(name, tensors)
            if value is not None:
                parameter.copy_(value)

    def logits(self, input_ids: Tensor) -> Tensor:
        """input_ids [B, T] -> logits [B, T, V]. Raises SubjectError if the model fails or returns anything else.

        To hidden states [B, T, C], the head is applied.
        """
        B, asked = input_ids.shape
        ids = input_ids.clone()
        logits = self._answer(ids, input_ids)
        if logits is None:
            raise SubjectError("answers without logits: neither a tensor, nor a tuple, nor anything with .logits")
        T = self.length or asked
        if T > 1 and logits.ndim and logits.numel() == B * logits.shape[-1]:  # only the last position
            self._caller.passes_targets = True
            logits = self._answer(ids, input_ids)
        self.changes_input |= not torch.equal(ids, input_ids)
        V, C = self.shapes["wte.weight"]
        if logits is not None and not (logits.is_floating_point() and logits.layout == torch.strided):
            raise SubjectError(f"answers with {logits.layout} {logits.dtype}, not with plain floats")
        if logits is not None and logits.shape in ((B, T, C), (B * T, C)):
            logits = self._with_head(logits)
        if logits is None or logits.shape not in ((B, T, V), (B * T, V)):
            shape = None if logits is None else list(logits.shape)
            raise SubjectError(f"answers with the shape {shape} to ids of the shape {[B, T]}, not {[B, T, V]}")
        return logits.reshape(B, T, V)[:, :asked]

    def _answer(self, ids: Tensor, targets: Tensor) -> Tensor | None:
        """The tensor in the model's answer. If 16-bit floats of its own stop it, they are taken as its other floats."""
        parameter = next(self.module.parameters())
        try:
            with own_requests(parameter.dtype, parameter.device, self._narrow_is_wide):
                return self._caller(ids, targets)
        except SubjectError as error:
            if self._narrow_is_wide or not _OF_DTYPES.search(str(error)):
                raise
        self._narrow_is_wide = True
        return self._answer(ids, targets)

    def _with_head(self, hidden: Tensor) -> Tensor:
        """The logits of hidden states, by the model's own head or, where it has none, by wte."""
        self.answers_hidden = True
        name = HEAD if HEAD in self.parameters else "wte.weight"
        return F.linear(hidden, self._layout.to_hf(name, self.parameters[name])) if name in self.parameters else hidden

    def _run(self) -> None:
        """Runs the model on as many ids as it has positions at most, without looking at what it answers."""
        parameter = next(self.module.parameters())
        ids = torch.arange(min(8, *self.shapes["wpe.weight"][:1]), device=parameter.device)[None]
        self._answer(ids, ids)


def _other_names(parameters: Mapping[str, nn.Parameter], shapes: Mapping[str, torch.Size]) -> list[str]:
    """Names that are not Hugging Face's, of parameters that have one of its names as well."""
    known = {name for name in parameters if whole_tensor(name)[0] in (*shapes, HEAD)}
    named = {id(parameters[name]) for name in known}
    return [name for name, parameter in parameters.items() if name not in known and id(parameter) in named]
