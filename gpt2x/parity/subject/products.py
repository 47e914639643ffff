"""Which way round a model multiplies with its matrices, seen in the products that it computes."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_PRODUCTS = ("mm", "bmm", "addmm", "baddbmm")


def multiplied_transposed(matrices: Mapping[str, Tensor], run: Callable[[], object]) -> dict[str, bool]:
    """Name -> whether a run computes x W^T with a matrix, as nn.Linear does, or else x W; only what was seen."""
    products = _Products(matrices)
    with torch.no_grad(), products:
        run()
    return products.transposed


class _Products(TorchDispatchMode):
    def __init__(self, matrices: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._names = {x.untyped_storage().data_ptr(): name for name, x in matrices.items() if x.ndim == 2}
        self._by_rows = {name: _is_by_rows(matrices[name]) for name in self._names.values()}
        self.transposed: dict[str, bool] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.overloadpacket.__name__ in _PRODUCTS:
            for factor, is_right in zip(args[-2:], (False, True), strict=True):
                name = self._names.get(factor.untyped_storage().data_ptr())
                if name is not None:
                    is_turned = _is_by_rows(factor) != self._by_rows[name]
                    self.transposed.setdefault(name, is_turned == is_right)
        return func(*args, **(kwargs or {}))


def _is_by_rows(x: Tensor) -> bool:
    """Whether the numbers of a row lie beside each other; a transposed view, or a clone of one, has them apart."""
    rows, columns = x.stride()[-2:]
    return rows > columns
