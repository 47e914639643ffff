"""The subject of a validation, ours or a user's, in a dtype and on a device."""

from dataclasses import dataclass

import torch
from torch import nn

from gpt2x.checkpoints.load import Checkpoint, model_of
from gpt2x.config.subject import SubjectConfig
from gpt2x.model.kernels.int8 import Int8Linear
from gpt2x.parity.comparison import OURS
from gpt2x.parity.reference.record import Record
from gpt2x.parity.subject import Subject, SubjectError, default_dtype, import_target
from gpt2x.parity.subject.target import Target, subject_code


@dataclass(frozen=True)
class Source:
    """Where subjects come from."""

    asked: SubjectConfig
    target: Target | None
    """None for our own model."""

    @property
    def name(self) -> str:
        return self.asked.target or OURS


def build(source: Source, checkpoint: Checkpoint, record: Record, dtype: torch.dtype, device: torch.device) -> Subject:
    """A subject whose weights are those of the dtype asked for, whatever dtype it then computes in.

    Raises SubjectError if the user's code fails, or its model has no parameters.
    """
    if source.target is None:
        return Subject(OURS, _ours(checkpoint, dtype, device), record.shapes, [])
    with default_dtype(dtype):
        # Anew in float64, for the constants that are made when it is imported.
        target = import_target(source.name) if dtype == torch.float64 else source.target
        module = target.build(checkpoint.model.config)
    if next(module.parameters(), None) is None:
        raise SubjectError("has no parameters: keep the weights in nn.Parameters or in modules")
    with subject_code():
        for parameter in module.parameters():
            parameter.data = parameter.data.to(record.dtype)
        module.to(device=device, dtype=dtype).requires_grad_(False)
    subject = Subject(source.name, module, record.shapes, source.asked.rename)
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
