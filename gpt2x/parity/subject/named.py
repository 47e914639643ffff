"""Whether every tensor of a subject is known under Hugging Face's name, so that it could be given its weights."""

import re
from collections.abc import Container, Mapping

from torch import Tensor

from gpt2x.parity.subject.code import SubjectError
from gpt2x.parity.subject.examined import Examined
from gpt2x.parity.subject.names import rename_setting, some


def check_named(subject: Examined, tensors: Mapping[str, Tensor], idle: Container[str]) -> None:
    """Raises SubjectError if the parameters without a name may well be the reference's that are missing.

    They may if they hold as many numbers. A subject with more, or fewer, is another architecture, and is compared.
    `tensors` are the reference's; `idle` are the subject's parameters that change nothing.
    """
    parts, found = subject.parts, subject.tensors()
    missing = [name for name in tensors if name not in found]
    unnamed = [name for name in parts.unexpected if name not in idle]
    if missing and sum(parts.parameters[name].numel() for name in unnamed) == sum(
        tensors[name].numel() for name in missing
    ):
        fitting = [name for name in unnamed if parts.parameters[name].numel() == tensors[missing[0]].numel()]
        own = (fitting or unnamed)[0]
        example = rename_setting([*parts.named_by_structure, [f"^{re.escape(own)}$", missing[0]]])
        raise SubjectError(
            f"gpt2x cannot tell which of its parameters are {some(missing)}; without names are {some(unnamed)}. "
            f"Add, for example, {example}"
        )
