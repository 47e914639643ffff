"""Parameters beyond those of GPT-2 that do not take part in what the subject computes."""

from torch import Tensor

from gpt2x.parity.subject.code import SubjectError
from gpt2x.parity.subject.examined import Examined


def idle_parameters(subject: Examined, ids: Tensor) -> dict[str, str]:
    """Name -> why it changes nothing, for unexpected parameters that are zero, or that the logits do not depend on.

    `ids` are [B, T]. Whether the logits depend on a parameter is tried with NaN in its place.
    """
    found = {}
    for name in subject.parts.unexpected:
        if not subject.tensor(name).any():
            found[name] = "a parameter that GPT-2 does not have, and that is all zero"
            continue
        try:
            if subject.logits(ids, nan_in=name).isfinite().all():
                found[name] = "a parameter that GPT-2 does not have, and that is not used"
        except SubjectError:
            pass
    return found
