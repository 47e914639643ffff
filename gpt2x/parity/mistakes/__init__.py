"""The mistakes that people make when they write a GPT-2, each as a change to a module of gpt2x's own model.

They are collected from what goes wrong in ports: other activations and epsilons, the layout of c_attn, masks,
scales, the order of norms and residuals, and rounding to other dtypes. gpt2x.parity.diagnosis tries them one by
one. To add a mistake, add an entry to the list of its kind of module. The order matters: where several mistakes
give the same output, the first is named as the cause.
"""

from collections.abc import Iterator
from typing import Any

from torch import nn

from gpt2x.model.attention import Attention
from gpt2x.model.block import MLP, Block
from gpt2x.parity.mistakes.activation import IN_ACTIVATION
from gpt2x.parity.mistakes.attention import IN_ATTENTION
from gpt2x.parity.mistakes.block import IN_BLOCK
from gpt2x.parity.mistakes.branch import IN_BRANCH
from gpt2x.parity.mistakes.embedding import IN_EMBEDDING
from gpt2x.parity.mistakes.linear import IN_LINEAR
from gpt2x.parity.mistakes.mistake import Mistake, WrongForward
from gpt2x.parity.mistakes.norm import IN_NORM
from gpt2x.parity.mistakes.rounding import IN_ANY

MISTAKES: dict[type[nn.Module], tuple[WrongForward[Any], ...]] = {
    nn.GELU: (*IN_ACTIVATION, *IN_ANY),
    nn.LayerNorm: (*IN_NORM, *IN_ANY),
    nn.Linear: (*IN_LINEAR, *IN_ANY),  # also the subclasses with fast products
    nn.Embedding: (*IN_EMBEDDING, *IN_ANY),
    Attention: (*IN_ATTENTION, *IN_BRANCH, *IN_ANY),
    MLP: (*IN_BRANCH, *IN_ANY),
    Block: (*IN_BLOCK, *IN_ANY),
}
"""Kind of module -> its mistakes, in the order in which they are tried."""


def mistakes_in(whole: nn.Module, parts: bool = True) -> Iterator[Mistake]:
    """All single mistakes in a module of gpt2x's own model, and, with `parts`, in each module inside it."""
    for name, module in whole.named_modules() if parts else [("", whole)]:
        place = f" (in {name})" if name else ""
        for mistake in _known(module):
            if mistake.applies(module):
                yield mistake.in_module(module, place)


def _known(module: nn.Module) -> tuple[WrongForward[Any], ...]:
    return next((mistakes for kind, mistakes in MISTAKES.items() if isinstance(module, kind)), ())
