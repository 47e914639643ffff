"""Whether the reference itself can be trusted. A reference that cannot is reported as such; no subject fails by it."""

import torch
from torch import Tensor

from gpt2x.errors import UserError
from gpt2x.parity.measures import RELATIVE_TOLERANCE, relative_difference
from gpt2x.parity.reference.record import Record


def check_finite(record: Record, weights: str) -> None:
    """Raises UserError if the logits in the exact dtype are not finite: nothing can be compared with them.

    `weights` names the checkpoint in the message.
    """
    if is_finite(record.logits):
        return
    site = next((site for site, output in record.outputs.items() if not is_finite(output)), "lm_head")
    culprit = next((name for name, tensor in record.parameters.items() if not is_finite(tensor)), None)
    what = f"; {culprit} of {weights} holds such values in {record.facts.dtype}" if culprit else ""
    raise UserError(
        f"the reference itself is wrong: transformers answers with NaN or infinite values, first in {site}{what}; "
        "give another dtype, or other weights (weights.path=FILE)"
    )


def check_repeatable(first: Tensor, again: Tensor, dtype: torch.dtype) -> None:
    """Raises UserError if two runs of the reference on one input differ by more than rounding in `dtype`.

    Logits that are not finite are left to check_finite().
    """
    difference = relative_difference(again, first) if is_finite(first) else 0.0
    if not difference <= RELATIVE_TOLERANCE[dtype]:
        raise UserError(
            f"the reference itself changes: two runs of transformers on the same input differ by {difference:.2g} of "
            "its scale, so nothing can be compared with it; if code of the subject changes transformers, compare with "
            "a reference that was saved without it (task.reference=FILE)"
        )


def is_finite(tensor: Tensor) -> bool:
    return bool(tensor.isfinite().all())
