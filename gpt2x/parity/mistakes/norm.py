"""Mistakes in LayerNorm: other epsilons, variances, axes, and no weight or bias. x [B, T, C] -> [B, T, C]."""

from torch import Tensor, nn
from torch.nn import functional as F

from gpt2x.parity.mistakes.mistake import WrongForward

_EPSILONS = (0.0, 1e-12, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


def _other_eps(eps: float) -> WrongForward[nn.LayerNorm]:
    return WrongForward(
        f"LayerNorm eps {eps:g} instead of {{m.eps:g}}",
        lambda m, x: F.layer_norm(x, m.normalized_shape, m.weight, m.bias, eps),
        applies=lambda m: m.eps != eps,
    )


def _centred(x: Tensor, axis: int = -1) -> Tensor:
    return x - x.mean(axis, keepdim=True)


IN_NORM: tuple[WrongForward[nn.LayerNorm], ...] = (
    *(_other_eps(eps) for eps in _EPSILONS),
    WrongForward("norm skipped", lambda m, x: x),
    WrongForward(
        "LayerNorm divides by std + eps instead of sqrt(variance + eps)",
        lambda m, x: _centred(x) / (x.std(-1, keepdim=True, correction=0) + m.eps) * m.weight + m.bias,
    ),
    WrongForward(
        "LayerNorm with the unbiased variance (n - 1)",
        lambda m, x: _centred(x) / (x.var(-1, keepdim=True) + m.eps).sqrt() * m.weight + m.bias,
    ),
    WrongForward(
        "LayerNorm with the unbiased variance (n - 1), and std + eps",
        lambda m, x: _centred(x) / (x.std(-1, keepdim=True) + m.eps) * m.weight + m.bias,
    ),
    WrongForward(
        "RMS norm instead of LayerNorm",
        lambda m, x: x / (x.square().mean(-1, keepdim=True) + m.eps).sqrt() * m.weight + m.bias,
    ),
    WrongForward(
        "missing bias: LayerNorm without it",
        lambda m, x: F.layer_norm(x, m.normalized_shape, m.weight, None, m.eps),
    ),
    WrongForward(
        "missing weight: LayerNorm without it",
        lambda m, x: F.layer_norm(x, m.normalized_shape, None, m.bias, m.eps),
    ),
    WrongForward(
        "LayerNorm without weight and bias",
        lambda m, x: F.layer_norm(x, m.normalized_shape, None, None, m.eps),
    ),
    WrongForward(
        "LayerNorm over the positions instead of the width",
        lambda m, x: _centred(x, 1) / (x.var(1, keepdim=True, correction=0) + m.eps).sqrt() * m.weight + m.bias,
    ),
)
