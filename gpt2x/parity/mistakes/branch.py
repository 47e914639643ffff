"""Mistakes in a branch of a block, attention or MLP: it adds the residual itself. x [B, T, C] -> [B, T, C]."""

from torch import Tensor, nn

from gpt2x.parity.causes import Cause, Kind
from gpt2x.parity.mistakes.mistake import Forward, WrongForward


def _with_its_input(forward: Forward, x: Tensor, *rest: object) -> Tensor:
    return x + forward(x, *rest)


IN_BRANCH: tuple[WrongForward[nn.Module], ...] = (
    WrongForward(
        Cause("its input, which is behind the norm, is added to its output", kind=Kind.BRANCH),
        _with_its_input,
        around=True,
    ),
)
