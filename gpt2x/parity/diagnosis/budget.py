"""How many pairs of mistakes are tried, so that a verdict with the first causes comes within about a minute."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from torch import nn

# Multiplications per minute, in float64 on one core; what torch does for each module takes as long as 1e6 of them.
# The work is counted, not timed, so that the result does not depend on what else the machine does.
_MINUTE = 6e11
_MODULE = 1e6

T = TypeVar("T")


@dataclass
class Budget:
    """The work that all searches of one diagnosis may put into pairs. Each of them gets half of what is left."""

    left: float = _MINUTE

    def affordable(self, trials: Iterable[T], module: nn.Module, tokens: int) -> Iterator[T]:
        """The first of some trials, each of which runs a module on so many tokens, as many as there is work for."""
        work = tokens * sum(p.numel() for p in module.parameters()) + _MODULE * sum(1 for _ in module.modules())
        most = self.left / 2
        for n_done, trial in enumerate(trials, 1):
            if n_done * work > most:
                return
            self.left -= work
            yield trial
