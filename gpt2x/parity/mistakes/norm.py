"""Mistakes in LayerNorm: other epsilons, variances, axes, and no weight or bias. x [B, T, C] -> [B, T, C]."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from gpt2x.parity.causes import Cause, Kind
from gpt2x.parity.mistakes.mistake import WrongForward

_EPSILONS = (0.0, 1e-12, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


Spread = Callable[[Tensor, float, int], Tensor]
"""(values, eps, axis) -> what the values are divided by, with 1 on the axis."""


def _root(x: Tensor, eps: float, axis: int) -> Tensor:
    return (x.var(axis, keepdim=True, correction=0) + eps).sqrt()


def _root_of_unbiased(x: Tensor, eps: float, axis: int) -> Tensor:
    return (x.var(axis, keepdim=True) + eps).sqrt()


def _std(x: Tensor, eps: float, axis: int) -> Tensor:
    return x.std(axis, keepdim=True, correction=0) + eps


def _unbiased_std(x: Tensor, eps: float, axis: int) -> Tensor:
    return x.std(axis, keepdim=True) + eps


def _root_mean_square(x: Tensor, eps: float, axis: int) -> Tensor:
    return (x.square().mean(axis, keepdim=True) + eps).sqrt()


def _root_mean_square_and_eps(x: Tensor, eps: float, axis: int) -> Tensor:
    return x.square().mean(axis, keepdim=True).sqrt() + eps


def _normalise(
    m: nn.LayerNorm,
    x: Tensor,
    eps: float | None = None,
    spread: Spread = _root,
    centre: bool = True,
    axis: int = -1,
    with_weight: bool = True,
    with_bias: bool = True,
) -> Tensor:
    """LayerNorm in steps; a mistake replaces one or two of them. `eps` None is the module's own."""
    y = (x - x.mean(axis, keepdim=True) if centre else x) / spread(x, m.eps if eps is None else eps, axis)
    y = y * m.weight if with_weight else y
    return y + m.bias if with_bias else y


def _wrong(text: str, kind: Kind = Kind.NORM, **steps: Any) -> WrongForward[nn.LayerNorm]:
    return WrongForward(Cause(text, kind=kind), partial(_normalise, **steps))


def _rms(which: str, spread: Spread = _root_mean_square, **steps: Any) -> WrongForward[nn.LayerNorm]:
    forward = partial(_normalise, spread=spread, centre=False, **steps)
    cause = Cause(f"RMS norm instead of LayerNorm{which}", kind=Kind.NORM)
    return WrongForward(cause, forward, architecture="RMSNorm")


def _other_eps(eps: float) -> WrongForward[nn.LayerNorm]:
    cause = Cause(f"LayerNorm eps {eps:g} instead of {{m.eps:g}}", kind=Kind.NORM_EPS, numbers=(eps,))
    return WrongForward(cause, partial(_normalise, eps=eps), applies=lambda m: m.eps != eps)


IN_NORM: tuple[WrongForward[nn.LayerNorm], ...] = (
    *(_other_eps(eps) for eps in _EPSILONS),
    WrongForward(Cause("norm skipped", kind=Kind.NORM), lambda m, x: x),
    _wrong("LayerNorm divides by std + eps instead of sqrt(variance + eps)", spread=_std),
    _wrong("LayerNorm with the unbiased variance (n - 1)", Kind.NORM_VARIANCE, spread=_root_of_unbiased),
    _wrong("LayerNorm with the unbiased variance (n - 1), and std + eps", Kind.NORM_VARIANCE, spread=_unbiased_std),
    _rms(""),
    _rms(", without bias", with_bias=False),
    _rms(", divided by RMS + eps", spread=_root_mean_square_and_eps),
    _rms(", divided by RMS + eps and without bias", spread=_root_mean_square_and_eps, with_bias=False),
    _wrong("missing bias: LayerNorm without it", Kind.NORM_BIAS, with_bias=False),
    _wrong("missing weight: LayerNorm without it", with_weight=False),
    _wrong("LayerNorm without weight and bias", with_weight=False, with_bias=False),
    _wrong("LayerNorm over the positions instead of the width", axis=1),
)
