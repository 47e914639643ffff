"""Mistakes in the activation: other functions than the tanh approximation of GELU, and other constants in it."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2x.parity.causes import Cause, Kind
from gpt2x.parity.mistakes.mistake import WrongForward

_ROOT, _CUBIC = math.sqrt(2 / math.pi), 0.044715
_ROOT_IN_FLOAT32 = torch.tensor(_ROOT).item()
_ROOT_OF_FLOAT32 = torch.tensor(2 / math.pi).sqrt().item()  # rounded twice; MKL rounds it to the former on AMD's CPUs


def _tanh_gelu(_: nn.GELU, x: Tensor, root: float = _ROOT, cubic: float = _CUBIC) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(root * (x + cubic * x**3)))


def _other(text: str, activation: Callable[[Tensor], Tensor]) -> WrongForward[nn.GELU]:
    return WrongForward(Cause(text, kind=Kind.ACTIVATION), lambda _, x: activation(x))


def _root(text: str, root: float) -> WrongForward[nn.GELU]:
    cause = Cause(f"tanh GELU with {text}", kind=Kind.GELU_CONSTANT, numbers=(root, _ROOT))
    return WrongForward(cause, partial(_tanh_gelu, root=root))


def _cubic(cubic: float) -> WrongForward[nn.GELU]:
    text = f"tanh GELU with {cubic} instead of {_CUBIC}"
    cause = Cause(text, kind=Kind.GELU_CONSTANT, numbers=(cubic, _CUBIC))
    return WrongForward(cause, partial(_tanh_gelu, cubic=cubic))


IN_ACTIVATION: tuple[WrongForward[nn.GELU], ...] = (
    _other("exact (erf) GELU instead of tanh", F.gelu),
    _other("sigmoid approximation of GELU, x sigmoid(1.702 x), instead of tanh", lambda x: x * (1.702 * x).sigmoid()),
    _other("ReLU instead of tanh GELU", F.relu),
    _other("squared ReLU instead of tanh GELU", lambda x: x.relu().square()),
    _other("SiLU instead of tanh GELU", F.silu),
    _other("sigmoid instead of tanh GELU", torch.sigmoid),
    _other("tanh instead of tanh GELU", torch.tanh),
    _other("leaky ReLU instead of tanh GELU", F.leaky_relu),
    _root("sqrt(2 / pi) in float32", _ROOT_IN_FLOAT32),
    _root("a constant in float32", _ROOT_OF_FLOAT32),
    _root("2 / pi for sqrt(2 / pi)", 2 / math.pi),
    *(
        _root(f"{root} for sqrt(2 / pi)", root)
        for root in (0.7978845608, 0.79788456, 0.797885, 0.79788, 0.7979, 0.798, 0.8)
    ),
    *map(_cubic, (0.0447, 0.44715, 0.4715, 0.045)),
    _other("no activation", lambda x: x),
)
