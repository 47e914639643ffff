"""Mistakes in a block: the order of norms, branches and residuals. x [B, T, C] -> [B, T, C].

Each function takes the arguments of Block.forward and ignores mask and cache: mistakes are tried on whole prompts.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from gpt2x.model.block import Block
from gpt2x.parity.causes import Cause, Kind
from gpt2x.parity.mistakes.mistake import Forward, WrongForward


def _whole_prompt(forward: Callable[[Block, Tensor], Tensor]) -> Forward:
    """forward(block, x), called with mask and cache as well."""
    return lambda m, x, *_: forward(m, x)


def _identity(x: Tensor) -> Tensor:
    return x


def _in_steps(
    m: Block,
    x: Tensor,
    *_: Any,
    norm_1: str | None = "ln_1",
    norm_2: str | None = "ln_2",
    around_attn: int = 1,
    around_mlp: int = 1,
    normed_at_attn: bool = False,
    normed_at_mlp: bool = False,
) -> Tensor:
    """A block in steps; a mistake replaces one or two of them. Norms are given by name, None for none; residuals by how
    often they are added, and by whether they are what comes out of the norm."""
    norms = [_identity if name is None else m.get_submodule(name) for name in (norm_1, norm_2)]
    y = norms[0](x)
    x = m.attn(y) + around_attn * (y if normed_at_attn else x)
    y = norms[1](x)
    return m.mlp(y) + around_mlp * (y if normed_at_mlp else x)


def _post_norm(m: Block, x: Tensor) -> Tensor:
    x = m.ln_1(x + m.attn(x))
    return m.ln_2(x + m.mlp(x))


def _norm_of_branch(m: Block, x: Tensor) -> Tensor:
    x = x + m.ln_1(m.attn(x))
    return x + m.ln_2(m.mlp(x))


def _without_parameters(m: Block, x: Tensor, centre: bool = True, with_eps: bool = True) -> Tensor:
    """A block with functions in the place of its norms."""

    def norm(x: Tensor) -> Tensor:
        y = x - x.mean(-1, keepdim=True) if centre else x
        return y / (y.square().mean(-1, keepdim=True) + (m.ln_1.eps if with_eps else 0)).sqrt()

    x = x + m.attn(norm(x))
    return x + m.mlp(norm(x))


def _mlp_first(m: Block, x: Tensor) -> Tensor:
    x = x + m.mlp(m.ln_2(x))
    return x + m.attn(m.ln_1(x))


_CAUSES: tuple[tuple[Kind, str, Forward], ...] = (
    (Kind.RESIDUAL, "residual left out around attention", partial(_in_steps, around_attn=0)),
    (Kind.RESIDUAL, "residual left out around the MLP", partial(_in_steps, around_mlp=0)),
    (Kind.RESIDUAL, "residual added twice around attention", partial(_in_steps, around_attn=2)),
    (Kind.RESIDUAL, "residual added twice around the MLP", partial(_in_steps, around_mlp=2)),
    (
        Kind.RESIDUAL,
        "residuals added twice around attention and the MLP",
        partial(_in_steps, around_attn=2, around_mlp=2),
    ),
    (
        Kind.BLOCK,
        "residual around the MLP taken from before attention",
        _whole_prompt(lambda m, x: x + m.mlp(m.ln_2(x + m.attn(m.ln_1(x))))),
    ),
    (Kind.RESIDUAL, "residuals left out around attention and the MLP", partial(_in_steps, around_attn=0, around_mlp=0)),
    (Kind.BLOCK, "post-norm instead of pre-norm", _whole_prompt(_post_norm)),
    (Kind.BLOCK, "norm after each branch instead of before it", _whole_prompt(_norm_of_branch)),
    (Kind.NORM_SKIPPED, "norm skipped: ln_1", partial(_in_steps, norm_1=None)),
    (Kind.NORM_SKIPPED, "norm skipped: ln_2", partial(_in_steps, norm_2=None)),
    (Kind.NORM_SKIPPED, "norms skipped: ln_1 and ln_2", partial(_in_steps, norm_1=None, norm_2=None)),
    (
        Kind.NORMS_SWAPPED,
        "norms swapped: ln_2 before attention, ln_1 before the MLP",
        partial(_in_steps, norm_1="ln_2", norm_2="ln_1"),
    ),
    (Kind.NORMS_SWAPPED, "ln_1 used for both norms", partial(_in_steps, norm_2="ln_1")),
    (Kind.NORMS_SWAPPED, "ln_2 used for both norms", partial(_in_steps, norm_1="ln_2")),
    (Kind.BLOCK, "residual taken after ln_1 instead of before it", partial(_in_steps, normed_at_attn=True)),
    (Kind.BLOCK, "residual taken after ln_2 instead of before it", partial(_in_steps, normed_at_mlp=True)),
    (
        Kind.BLOCK,
        "residuals taken after the norms instead of before them",
        partial(_in_steps, normed_at_attn=True, normed_at_mlp=True),
    ),
    (Kind.BLOCK, "attention and MLP in parallel", _whole_prompt(lambda m, x: x + m.attn(m.ln_1(x)) + m.mlp(m.ln_2(x)))),
    (
        Kind.BLOCK,
        "attention and MLP in parallel, both after ln_1",
        _whole_prompt(lambda m, x: x + m.attn(m.ln_1(x)) + m.mlp(m.ln_1(x))),
    ),
    (Kind.BLOCK, "MLP before attention", _whole_prompt(_mlp_first)),
    (Kind.BLOCK, "attention left out", _whole_prompt(lambda m, x: x + m.mlp(m.ln_2(x)))),
    (Kind.BLOCK, "MLP left out", _whole_prompt(lambda m, x: x + m.attn(m.ln_1(x)))),
    (Kind.BLOCK, "attention and MLP left out: the block does nothing", _whole_prompt(lambda m, x: x)),
)
_BARE = "for both norms, without weight and bias"


def _bare_rms(what: str, with_eps: bool) -> WrongForward[Block]:
    forward = _whole_prompt(partial(_without_parameters, centre=False, with_eps=with_eps))
    return WrongForward(Cause(f"RMS norm {what}", kind=Kind.BLOCK), forward, architecture="RMSNorm")


IN_BLOCK: tuple[WrongForward[Block], ...] = (
    WrongForward(Cause(f"LayerNorm {_BARE}", kind=Kind.BLOCK), _whole_prompt(_without_parameters)),
    _bare_rms(_BARE, with_eps=True),
    _bare_rms(f"{_BARE}, and without eps", with_eps=False),
    *(WrongForward(Cause(text, kind=kind), forward) for kind, text, forward in _CAUSES),
)
