"""Mistakes in any kind of module: its input or its output passes through a smaller dtype."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gpt2x.checkpoints.names import dtype_name
from gpt2x.parity.causes import Cause, Kind
from gpt2x.parity.measures import ROUNDED, rounded
from gpt2x.parity.mistakes.mistake import Forward, WrongForward


def round_output(forward: Forward, *args: Any, half: torch.dtype) -> Tensor:
    """The output of a forward function, rounded to `half`."""
    return rounded(forward(*args), half)


def _round_input(forward: Forward, x: Tensor, *rest: Any, half: torch.dtype) -> Tensor:
    return forward(rounded(x, half), *rest)


def _takes_floats(m: nn.Module) -> bool:
    return not isinstance(m, nn.Embedding)


def _roundings(half: torch.dtype) -> tuple[WrongForward[nn.Module], ...]:
    name = dtype_name(half)
    return (
        WrongForward(
            Cause(f"output rounded to {name}", kind=Kind.ROUNDING),
            partial(round_output, half=half),
            around=True,
            rounds=True,
        ),
        WrongForward(
            Cause(f"input rounded to {name}", kind=Kind.ROUNDING),
            partial(_round_input, half=half),
            around=True,
            applies=_takes_floats,
            rounds=True,
        ),
    )


IN_ANY: tuple[WrongForward[nn.Module], ...] = tuple(mistake for half in ROUNDED for mistake in _roundings(half))
