"""What a subject's code asks torch for by itself, against the dtype and the device in which it is compared."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_CASTS = {
    torch.Tensor.float: torch.float32,
    torch.Tensor.half: torch.float16,
    torch.Tensor.bfloat16: torch.bfloat16,
}


@contextmanager
def own_requests(dtype: torch.dtype, device: torch.device, narrow_is_wide: bool = False) -> Iterator[None]:
    """While it lasts, code gets `dtype` where it asks for another that cannot be mixed with it.

    If `dtype` is float64, code that asks for float32 gets float64: a norm "in full precision", or a constant. With
    `narrow_is_wide`, code that asks for a 16-bit float gets `dtype`. On a CPU, code that asks for a GPU gets the CPU.
    """
    dtypes = {torch.float32: dtype} if dtype == torch.float64 else {}
    if narrow_is_wide:
        dtypes |= {torch.float16: dtype, torch.bfloat16: dtype}
    with _default_dtype(dtype), _Replaced(dtypes, device):
        yield


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """If `dtype` is float64, tensors that are made without a dtype are float64; otherwise float32, torch's default."""
    torch.set_default_dtype(torch.float64 if dtype == torch.float64 else torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


class _Replaced(TorchFunctionMode):
    """Replaces dtypes, and a GPU where the device is a CPU, in the arguments of every call of torch."""

    def __init__(self, dtypes: Mapping[torch.dtype, torch.dtype], device: torch.device) -> None:
        super().__init__()
        self._dtypes = dtypes
        self._device = device

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        # Here a dtype tells what the bytes mean. torch.load puts those of a file into an empty tensor.
        if func in (torch.frombuffer, torch.Tensor.view) or (func is torch.empty and args[:1] == ((0,),)):
            return func(*args, **kwargs)
        if func is torch.Tensor.cuda and self._device.type == "cpu":
            return args[0]
        if _CASTS.get(func) in self._dtypes:
            return args[0].to(self._dtypes[_CASTS[func]])
        args = tuple(map(self._replaced, args))
        return func(*args, **{key: self._replaced(argument) for key, argument in kwargs.items()})

    def _replaced(self, argument: Any) -> Any:
        if isinstance(argument, torch.dtype):
            return self._dtypes.get(argument, argument)
        if self._device.type == "cpu" and isinstance(argument, (str, torch.device)):
            return self._device if str(argument).startswith("cuda") else argument
        return argument
