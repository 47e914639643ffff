"""Models that answer with the loss alone: their logits are what the loss is computed from."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class LossInputs(TorchFunctionMode):
    """While it is active, `found` gets the inputs of the cross entropies that are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in (F.cross_entropy, F.nll_loss):
            scores = args[0] if args else kwargs["input"]
            self.found.append(scores.movedim(1, -1) if scores.ndim > 2 else scores)
        return func(*args, **kwargs)
