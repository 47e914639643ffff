"""Float64 for subjects whose code asks for float32."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


@contextmanager
def float32_is_float64(dtype: torch.dtype) -> Iterator[None]:
    """If `dtype` is float64, code that asks for float32 gets float64: a norm "in full precision", or a constant."""
    with default_dtype(dtype), _Float64() if dtype == torch.float64 else nullcontext():
        yield


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """If `dtype` is float64, tensors that are made without a dtype are float64; otherwise float32, torch's default."""
    torch.set_default_dtype(torch.float64 if dtype == torch.float64 else torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


class _Float64(TorchFunctionMode):
    """Replaces float32 by float64 in the arguments of every call of torch."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in (torch.frombuffer, torch.Tensor.view):  # here a dtype tells what the bytes mean
            return func(*args, **kwargs)
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        args = tuple(_widened(argument) for argument in args)
        return func(*args, **{key: _widened(argument) for key, argument in kwargs.items()})


def _widened(argument: Any) -> Any:
    return torch.float64 if argument is torch.float32 else argument
