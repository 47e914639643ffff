"""Builds the subject of a validation, gpt2x's own model or a user's, in a dtype and on a device."""

from collections.abc import Iterable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from gpt2x.checkpoints.load import Checkpoint, model_of
from gpt2x.config.subject import SubjectConfig
from gpt2x.model.config import GPT2Config
from gpt2x.model.kernels.int8 import Int8Linear
from gpt2x.parity.subject.code import SubjectError, subject_code
from gpt2x.parity.subject.module import Subject
from gpt2x.parity.subject.naming import rules_by_structure
from gpt2x.parity.subject.padding import cut_tables
from gpt2x.parity.subject.requests import own_requests

OURS = "gpt2x"  # the name of gpt2x's own model as a subject


Shapes = Mapping[str, torch.Size]
"""Of tensors, by Hugging Face's names less `transformer.`, in its layout."""


class Maker(Protocol):
    """Makes a user's model: an imported class or function, or an object that the caller of the Python API has."""

    @property
    def name(self) -> str:
        """The name of the subject in tables and messages."""

    @property
    def notes(self) -> list[str]:
        """What the user should know about how the model was made, one line each."""

    def build(self, config: GPT2Config, dtype: torch.dtype) -> nn.Module:
        """A new model, which will be converted to `dtype`. Raises SubjectError if the user's code fails."""


def build_own(checkpoint: Checkpoint, shapes: Shapes, dtype: torch.dtype, device: torch.device) -> Subject:
    """gpt2x's own model in `dtype` on `device`. `shapes` are those of the reference's tensors."""
    return Subject(OURS, _ours(checkpoint, dtype, device), shapes, [])


def build_user_models(
    maker: Maker,
    asked: SubjectConfig,
    config: GPT2Config,
    shapes: Shapes,
    weights_dtype: torch.dtype,
    weights: Mapping[str, Tensor],
    places: Iterable[tuple[torch.dtype, torch.device]],
) -> list[Subject]:
    """A user's model once per dtype and device. Its weights are rounded to `weights_dtype`, the reference's, first.

    `shapes` are those of the reference's tensors, `weights` those that are copied into the model. Names that are found
    by structure are found once. Raises SubjectError if the user's code fails, or if its model has no parameters.
    """
    subjects: list[Subject] = []
    rename = asked.rename
    for dtype, device in places:
        module, cut = _built(maker, config, shapes, weights_dtype, dtype, device)
        found = [] if rename else rules_by_structure(module, shapes)
        subject = Subject(maker.name, module, shapes, rename or found)
        subject.named_by_structure, subject.cut = found, cut
        subject.copy_from(weights)
        subjects.append(subject)
        rename = rename or found
    return subjects


def _built(
    maker: Maker,
    config: GPT2Config,
    shapes: Shapes,
    weights_dtype: torch.dtype,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[nn.Module, str]:
    """The module, in eval mode, and what was done to its tables."""
    with own_requests(dtype, device):
        module = maker.build(config, dtype)
    (V, C), (P, _) = shapes["wte.weight"], shapes["wpe.weight"]
    cut = cut_tables(module, V, P, C)
    if next(module.parameters(), None) is None:
        raise SubjectError("has no parameters: keep the weights in nn.Parameters or in modules")
    with subject_code():
        for parameter in module.parameters():
            parameter.data = parameter.data.to(weights_dtype)
        _to(module, dtype, device)
        module.requires_grad_(False)
    return module.eval(), cut


def _to(module: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Module.to, which takes the imaginary part away where a buffer is complex, but for these buffers."""
    complex_dtype = torch.promote_types(dtype, torch.complex64)
    kept = [
        (owner, name, buffer.to(device=device, dtype=complex_dtype))
        for owner in module.modules()
        for name, buffer in owner.named_buffers(recurse=False)
        if buffer.is_complex()
    ]
    for owner, name, _ in kept:
        setattr(owner, name, None)
    module.to(device=device, dtype=dtype)
    for owner, name, buffer in kept:
        setattr(owner, name, buffer)


def _ours(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> nn.Module:
    model = checkpoint.model
    computes_in = torch.int8 if isinstance(model.lm_head, Int8Linear) else model.lm_head.weight.dtype
    if computes_in == dtype and model.lm_head.weight.device == device:
        return model
    state = {name: tensor.to(device=device, dtype=dtype) for name, tensor in model.transformer.state_dict().items()}
    return model_of({f"transformer.{name}": tensor for name, tensor in state.items()}, model.config)
