"""Parameters beyond those of GPT-2 that do not take part in what the subject computes."""

import torch
from torch import Tensor

from gpt2x.parity.subject.code import SubjectError
from gpt2x.parity.subject.module import Subject


@torch.no_grad()
def idle_parameters(subject: Subject, ids: Tensor) -> dict[str, str]:
    """Name -> why it changes nothing, for unexpected parameters that are zero, or that the logits do not depend on.

    `ids` are [B, T]. Whether the logits depend on a parameter is tried with NaN in its place.
    """
    found = {}
    for name in subject.unexpected():
        parameter = subject.parameters[name]
        if not parameter.any():
            found[name] = "a parameter that GPT-2 does not have, and that is all zero"
            continue
        value = parameter.clone()
        try:
            parameter.fill_(torch.nan)
            if subject.logits(ids).isfinite().all():
                found[name] = "a parameter that GPT-2 does not have, and that is not used"
        except SubjectError:
            pass
        finally:
            parameter.copy_(value)
    return found
