"""What a mistake is: the types that the lists in this package are made of."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from torch import Tensor, nn

from gpt2x.model.gpt2 import Transformer

Forward = Callable[..., Tensor]

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Mistake:
    """A mistake in particular modules of gpt2x's own model: its cause in words, and how it is made."""

    cause: str
    forwards: Mapping[nn.Module, Forward]
    """Module -> the forward function that replaces its own."""
    layers: tuple[Transformer, list[int]] | None = None
    """A transformer, and the indices of the blocks that it runs, in this order; None if it runs its own."""

    @contextmanager
    def made(self) -> Iterator[None]:
        """Inside the context the modules make the mistake; afterwards they are as they were."""
        for module, forward in self.forwards.items():
            module.forward = forward
        if self.layers is not None:
            transformer, calls = self.layers
            h = transformer.h
            transformer.h = nn.ModuleList([h[i] for i in calls])
        try:
            yield
        finally:
            for module in self.forwards:
                del module.forward
            if self.layers is not None:
                transformer.h = h


@dataclass(frozen=True)
class WrongForward(Generic[M]):
    """A wrong way to compute one kind of module: an entry of a list that has one entry per known mistake."""

    cause: str
    """In words. `{m.eps:g}` and the like are replaced by the module's own numbers."""
    forward: Forward
    """forward(module, *the arguments of its own forward) -> what the mistake makes of them."""
    applies: Callable[[M], bool] = lambda _: True
    """Whether a module can have this mistake at all."""

    def in_module(self, module: M, place: str = "") -> Mistake:
        """The mistake in one module; `place` is added to its cause."""
        return Mistake(self.cause.format(m=module) + place, {module: partial(self.forward, module)})
