"""Mistakes in the activation: other functions than the tanh approximation of GELU, and other constants in it."""

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2x.parity.mistakes.mistake import Forward, WrongForward

_ROOT = math.sqrt(2 / math.pi)
_ROOT_IN_FLOAT32 = torch.tensor(_ROOT).item()
_ROOT_OF_FLOAT32 = torch.tensor(2 / math.pi).sqrt().item()  # rounded twice: before the square root and after it


def _tanh_gelu(_: nn.GELU, x: Tensor, root: float = _ROOT, cubic: float = 0.044715) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(root * (x + cubic * x**3)))


def _other(activation: Forward) -> Forward:
    return lambda _, x: activation(x)


IN_ACTIVATION: tuple[WrongForward[nn.GELU], ...] = (
    WrongForward("exact (erf) GELU instead of tanh", _other(F.gelu)),
    WrongForward(
        "sigmoid approximation of GELU, x sigmoid(1.702 x), instead of tanh", lambda _, x: x * (1.702 * x).sigmoid()
    ),
    WrongForward("ReLU instead of tanh GELU", _other(F.relu)),
    WrongForward("squared ReLU instead of tanh GELU", lambda _, x: x.relu().square()),
    WrongForward("SiLU instead of tanh GELU", _other(F.silu)),
    WrongForward("sigmoid instead of tanh GELU", _other(torch.sigmoid)),
    WrongForward("tanh instead of tanh GELU", _other(torch.tanh)),
    WrongForward("leaky ReLU instead of tanh GELU", _other(F.leaky_relu)),
    WrongForward("tanh GELU with a constant in float32", partial(_tanh_gelu, root=_ROOT_OF_FLOAT32)),
    WrongForward("tanh GELU with sqrt(2 / pi) in float32", partial(_tanh_gelu, root=_ROOT_IN_FLOAT32)),
    WrongForward("tanh GELU with 2 / pi for sqrt(2 / pi)", partial(_tanh_gelu, root=2 / math.pi)),
    *(
        WrongForward(f"tanh GELU with {root} for sqrt(2 / pi)", partial(_tanh_gelu, root=root))
        for root in (0.7978845608, 0.79788456, 0.797885, 0.79788, 0.7979, 0.798, 0.8)
    ),
    *(
        WrongForward(f"tanh GELU with {cubic} instead of 0.044715", partial(_tanh_gelu, cubic=cubic))
        for cubic in (0.0447, 0.44715, 0.4715, 0.045)
    ),
    WrongForward("no activation", lambda _, x: x),
)
