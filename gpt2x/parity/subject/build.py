"""Builds the subject of a validation, gpt2x's own model or a user's, in a dtype and on a device."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from gpt2x.checkpoints.load import Checkpoint, model_of
from gpt2x.config.subject import SubjectConfig
from gpt2x.model.config import GPT2Config
from gpt2x.model.kernels.int8 import Int8Linear
from gpt2x.parity.reference.record import Record
from gpt2x.parity.subject.code import SubjectError, subject_code
from gpt2x.parity.subject.float64 import default_dtype
from gpt2x.parity.subject.module import Subject
from gpt2x.parity.subject.naming import rules_by_structure

OURS = "gpt2x"  # the name of gpt2x's own model as a subject


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


@dataclass(frozen=True)
class Source:
    """Where the subject comes from; it is built once per dtype."""

    asked: SubjectConfig
    target: Maker | None
    """None for gpt2x's own model."""

    @property
    def name(self) -> str:
        return self.target.name if self.target is not None else OURS

    @property
    def notes(self) -> list[str]:
        return self.target.notes if self.target is not None else []


def build(source: Source, checkpoint: Checkpoint, record: Record, dtype: torch.dtype, device: torch.device) -> Subject:
    """The subject in `dtype` on `device`. Its weights are rounded to the record's dtype first.

    Raises SubjectError if the user's code fails, or if its model has no parameters.
    """
    if source.target is None:
        return Subject(OURS, _ours(checkpoint, dtype, device), record.shapes, [])
    with default_dtype(dtype):
        module = source.target.build(checkpoint.model.config, dtype)
    if next(module.parameters(), None) is None:
        raise SubjectError("has no parameters: keep the weights in nn.Parameters or in modules")
    with subject_code():
        for parameter in module.parameters():
            parameter.data = parameter.data.to(record.dtype)
        module.to(device=device, dtype=dtype).requires_grad_(False)
    found = [] if source.asked.rename else rules_by_structure(module.eval(), record.shapes)
    subject = Subject(source.name, module, record.shapes, source.asked.rename or found)
    subject.named_by_structure = found
    if source.asked.weights == "copy":
        subject.copy_from(record.parameters)
    return subject


def _ours(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> nn.Module:
    model = checkpoint.model
    computes_in = torch.int8 if isinstance(model.lm_head, Int8Linear) else model.lm_head.weight.dtype
    if computes_in == dtype and model.lm_head.weight.device == device:
        return model
    state = {name: tensor.to(device=device, dtype=dtype) for name, tensor in model.transformer.state_dict().items()}
    return model_of({f"transformer.{name}": tensor for name, tensor in state.items()}, model.config)
