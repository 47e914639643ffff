"""A mode in which torch has no dropout."""

from collections.abc import Callable
from typing import Any

from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class WithoutDropout(TorchFunctionMode):
    """Inside, torch's dropout functions return their input, whatever mode a module is in."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in ("dropout", "dropout_", "alpha_dropout", "feature_dropout"):
            return args[0] if args else kwargs["input"]
        if func is F.scaled_dot_product_attention:
            return func(*args[:4], **{key: value for key, value in kwargs.items() if key != "dropout_p"})
        return func(*args, **kwargs)
