"""What a format reads: named tensors, and what the file itself says about them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from torch import Tensor

from gpt2x.checkpoints.rows import Step
from gpt2x.errors import UserError

_LARGEST = {"n_layer": 10_000}  # GPT-2 XL has 48
_LARGEST_SIZE = 10**7  # of any other size of an architecture: 200 times GPT-2's vocabulary


class Layout(StrEnum):
    """How a file stores the matrices of c_attn, c_proj and c_fc."""

    CONV1D = "conv1d"
    """[in, out], as Hugging Face and OpenAI do."""
    LINEAR = "linear"
    """[out, in], as nn.Linear does."""


@dataclass(frozen=True)
class Stated:
    """The architecture that a checkpoint states; None where it says nothing."""

    origin: str
    """What says so, for messages: `config.json`, `model_args`, ..."""
    vocab_size: int | None = None
    n_positions: int | None = None
    n_embd: int | None = None
    n_layer: int | None = None
    n_head: int | None = None
    layer_norm_epsilon: float | None = None
    bias: bool = True
    """Whether linear layers and norms have biases."""
    may_pad: bool = True
    """Whether vocab_size may count rows of wte that pad the vocabulary, as in nanoGPT."""
    padded_vocab_size: int | None = None
    """Rows of wte with those that pad the vocabulary."""


@dataclass(frozen=True)
class Contents:
    """The tensors of a checkpoint, in the names and layout of the file, memory-mapped where possible."""

    format: str
    """What users call the format."""
    tensors: dict[str, Tensor]
    layout: Layout | None = None
    """Of all matrices, where the format fixes it. Without it, the shapes tell."""
    stated: Stated | None = None
    steps: Mapping[str, tuple[Step, ...]] = field(default_factory=dict)
    """Tensor -> what reading has done to it."""
    dtypes: Mapping[str, str] = field(default_factory=dict)
    """Tensor -> its dtype in the file, where the tensor has another one."""
    notes: tuple[str, ...] = ()
    """What users should know about this file, in sentences without a full stop."""


def stated(origin: str, values: Mapping[str, Any], names: Mapping[str, str], where: str) -> Stated:
    """The architecture in a file's own mapping; `names` has its name for each field of Stated that it may have.

    Raises UserError, which names `where`, for a value that cannot be one.
    """
    found: dict[str, Any] = {}
    for key, own in names.items():
        value = values.get(own)
        if value is None:
            continue
        if key == "bias":
            is_right = isinstance(value, bool)
        elif key == "layer_norm_epsilon":
            is_right = isinstance(value, float) and 0 < value < 1
        else:
            is_right = type(value) is int and 0 < value <= _LARGEST.get(key, _LARGEST_SIZE)
        if not is_right:
            raise UserError(f"{where}: {origin} says {own}={str(value)[:40]!r}, which cannot be")
        found[key] = value
    return Stated(origin, **found)
