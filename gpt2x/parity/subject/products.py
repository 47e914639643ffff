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
        self._names = {matrix.untyped_storage().data_ptr(): name for name, matrix in matrices.items()}
        self.transposed: dict[str, bool] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.overloadpacket.__name__ in _PRODUCTS:
            for factor, is_right in zip(args[-2:], (False, True), strict=True):
                name = self._names.get(factor.untyped_storage().data_ptr())
                if name is not None:
                    rows, columns = factor.stride()[-2:]
                    self.transposed.setdefault(name, (rows < columns) == is_right)
        return func(*args, **(kwargs or {}))
