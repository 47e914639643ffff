"""The values of weights: those that are not finite are refused, and those that no GPT-2 has are pointed out."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from gpt2x.checkpoints.names import HEAD, WTE, dtype_name
from gpt2x.errors import UserError
from gpt2x.model.gpt2 import GPT2
from gpt2x.paths import shown

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_EXTREME = 1e4
"""The weights of GPT-2 are below 100. If the highest bit of an exponent is flipped, a weight of 0.02 becomes 1e36."""


def check_values(tensors: Mapping[str, Tensor], path: Path) -> tuple[bool, list[str]]:
    """Whether the file has a head, and a note on values that are extreme.

    Raises UserError where the head is not wte, or a value is not finite.
    """
    wte, head = tensors[WTE], tensors.get(HEAD)
    # torch.save stores a tied head and wte once, so that they are at the same address.
    tied = head is not None and head.data_ptr() == wte.data_ptr()
    apart = {name: tensor for name, tensor in tensors.items() if name != HEAD or not tied}
    notes = list(_notes([name for name, tensor in apart.items() if _is_extreme(name, tensor, path)], apart))
    if head is not None and not tied and not torch.equal(head, wte):
        raise UserError(f"{shown(path)}: {HEAD} differs from {WTE}; GPT-2's head is tied to wte")
    return head is not None, notes


def _is_extreme(name: str, tensor: Tensor, path: Path) -> bool:
    """Whether a value is extreme. Raises UserError where one is not finite."""
    if tensor.dtype not in _DTYPES:
        raise UserError(f"{shown(path)}: {name} holds {dtype_name(tensor.dtype)}, not floats of 16 to 64 bits")
    # The sum takes one pass and no temporary memory. It is large where a value is extreme, and may be so, or overflow,
    # where none is: more passes follow.
    if tensor.sum().abs() < _EXTREME:
        return False
    bad = ~tensor.isfinite()
    if bad.any():
        place = bad.nonzero()[0].tolist()
        raise UserError(
            f"{shown(path)}: {name} holds NaN or Inf: {int(bad.sum())} of {tensor.numel():,} values, the first at "
            f"{place}; the file is damaged, or its training diverged"
        )
    return _largest(tensor) >= _EXTREME


def _largest(tensor: Tensor) -> float:
    """The largest absolute value."""
    return max(abs(bound.item()) for bound in tensor.aminmax()) if tensor.numel() else 0.0


def _notes(extreme: list[str], tensors: Mapping[str, Tensor]) -> Iterator[str]:
    if extreme:
        others = "" if len(extreme) == 1 else f" ({len(extreme)} tensors have such values)"
        yield f"{_holds(extreme[0], tensors[extreme[0]])}: the file may be damaged{others}"


def _holds(name: str, tensor: Tensor) -> str:
    return f"{name} holds a value of {_largest(tensor):.2g}, far beyond the weights of GPT-2"


def not_finite(model: GPT2, name: str, dtype: str) -> UserError:
    """The error for logits that are NaN or infinite, which names the most likely reason.

    `name` is that of the model, and `dtype` the one that it computes in.
    """
    tensor, weight = max(model.named_parameters(), key=lambda named: _largest(named[1].detach()))
    if _largest(weight) >= _EXTREME:
        fix = f"{_holds(tensor, weight)}: the file may be damaged"
    elif dtype in ("float16", "int8"):
        fix = "numbers overflow; use dtype=float32"
    else:
        fix = "check the weights with task=validate"
    return UserError(f"dtype={dtype}: the logits of {name} are not finite: {fix}")
