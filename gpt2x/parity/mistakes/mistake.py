"""What a mistake is: the types that the lists in this package are made of, and how several are made at once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from gpt2x.model.gpt2 import Transformer
from gpt2x.parity.causes import Cause

Forward = Callable[..., Tensor]

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Around:
    """A change around the forward function of a module: its own, or one that makes another mistake."""

    module: nn.Module
    change: Forward
    """change(forward function, *its arguments) -> what the module answers."""

    def __call__(self, *args: Any) -> Tensor:
        return self.change(partial(type(self.module).forward, self.module), *args)


@dataclass(frozen=True)
class Mistake:
    """A mistake in particular modules of gpt2x's own model: what it is called, and how it is made."""

    cause: Cause
    forwards: Mapping[nn.Module, Forward] = field(default_factory=dict)
    """Module -> the forward function that replaces its own."""
    layers: tuple[Transformer, list[int]] | None = None
    """A transformer, and the indices of the blocks that it runs, in this order; None if it runs its own."""
    weights: Mapping[nn.Parameter, Tensor] = field(default_factory=dict)
    """Parameter -> the values that replace its own."""
    rounds: bool = False
    """Whether it only passes values through a smaller dtype."""
    architecture: str = ""
    """What it belongs to, if it is no mistake but a part of another architecture."""

    def concerns(self, whole: nn.Module) -> bool:
        """Whether it changes what is inside a module."""
        return not (
            self.forwards.keys().isdisjoint(whole.modules()) and self.weights.keys().isdisjoint(whole.parameters())
        )


def can_be_joined(a: Mistake, b: Mistake) -> bool:
    """Whether both can be made: in different modules, in different steps of a function, or one around another."""
    if a.layers is not None and b.layers is not None:
        return False
    both = a.forwards.keys() & b.forwards.keys()
    return all(_joined(a.forwards[module], b.forwards[module]) is not None for module in both)


@contextmanager
def made(mistakes: Sequence[Mistake]) -> Iterator[None]:
    """Inside the context gpt2x's own modules make all of the mistakes; afterwards they are as they were.

    Raises ValueError if two of them cannot be joined.
    """
    forwards: dict[nn.Module, Forward] = {}
    # Changes around a function come last: what is inside can then still be joined with another mistake in it.
    replacing = [(mistake, *each) for mistake in mistakes for each in mistake.forwards.items()]
    for mistake, module, forward in sorted(replacing, key=lambda each: isinstance(each[2], Around)):
        joined = _joined(forwards[module], forward) if module in forwards else forward
        if joined is None:
            raise ValueError(f"{mistake.cause}: another mistake replaces the same forward function")
        forwards[module] = joined
    weights = {parameter: new for mistake in mistakes for parameter, new in mistake.weights.items()}
    before = {parameter: parameter.data for parameter in weights}
    blocks = [(*mistake.layers, mistake.layers[0].h) for mistake in mistakes if mistake.layers is not None]
    for module, forward in forwards.items():
        module.forward = forward
    for parameter, new in weights.items():
        parameter.data = new
    for transformer, calls, h in blocks:
        transformer.h = nn.ModuleList([h[i] for i in calls])
    try:
        yield
    finally:
        for module in forwards:
            del module.forward
        for parameter, old in before.items():
            parameter.data = old
        for transformer, _, h in blocks:
            transformer.h = h


def _joined(a: Forward, b: Forward) -> Forward | None:
    """One forward function that makes both mistakes; None if there is none."""
    if isinstance(b, Around):
        return partial(b.change, a)
    if isinstance(a, Around):
        return partial(a.change, b)
    if isinstance(a, partial) and isinstance(b, partial) and a.func is b.func and a.args == b.args:
        return partial(a, **b.keywords) if a.keywords.keys().isdisjoint(b.keywords) else None
    return None


@dataclass(frozen=True)
class WrongForward(Generic[M]):
    """A wrong way to compute one kind of module: an entry of a list that has one entry per known mistake."""

    cause: Cause
    """In its text, `{m.eps:g}` and the like are replaced by the module's own numbers."""
    forward: Forward
    """forward(module, *the arguments of its own forward) -> what the mistake makes of them.

    Mistakes that are `partial` of one function, with different keywords, can be made in one module at once. If
    `around` is true, the first argument is the forward function that the module has otherwise.
    """
    around: bool = False
    """Whether it changes only what goes into the module or comes out of it, so that other mistakes can be made too."""
    applies: Callable[[M], bool] = lambda _: True
    """Whether a module can have this mistake at all."""
    rounds: bool = False
    """Whether it only passes values through a smaller dtype: such mistakes are not tried in pairs."""
    architecture: str = ""
    """What it belongs to, if it is no mistake but a part of another architecture."""

    def in_module(self, module: M, place: str = "") -> Mistake:
        """The mistake in one module; `place` is added to its cause."""
        forward = Around(module, self.forward) if self.around else partial(self.forward, module)
        cause = replace(self.cause, text=self.cause.text.format(m=module) + place)
        return Mistake(cause, {module: forward}, rounds=self.rounds, architecture=self.architecture)
