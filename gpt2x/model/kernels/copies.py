"""Copies of a weight in another layout or dtype, which must not outlive the numbers that they were made from."""

from typing import Generic, TypeVar

from torch import Tensor, equal

T = TypeVar("T")
_SAMPLED = 4  # per dimension


class WeightCopy(Generic[T]):
    """A value computed from a weight, and what it takes to notice that the weight has changed since.

    Most changes show in the tensor: another object, another version (in-place operations count it), another address
    or layout (`weight.data = ...`). Two do not: torch's fused optimizers and writes through `weight.data` leave the
    version as it is. A trainable weight therefore has no valid copy at all, and a few numbers of the weight are
    compared. A write through `weight.data` to single numbers is the one change that may remain unnoticed.
    """

    def __init__(self, weight: Tensor, value: T) -> None:
        self.value = value
        self._weight, self._version, self._stride = weight, weight._version, weight.stride()
        # Holding the memory keeps its address from being given to another tensor.
        self._address, memory = weight.data_ptr(), weight.detach()
        rows, columns = (max(1, size // _SAMPLED) for size in weight.shape)
        self._sample = memory[::rows, ::columns]  # a view
        self._numbers = self._sample.clone()

    def is_of(self, weight: Tensor) -> bool:
        """Whether the weight is the one that was copied, unchanged, and not trainable."""
        return (
            weight is self._weight
            and not weight.requires_grad
            and weight._version == self._version
            and weight.data_ptr() == self._address
            and weight.stride() == self._stride
            and equal(self._sample, self._numbers)
        )

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """None takes its place in deep copies and pickles: it belongs to this weight alone, and may be opaque."""
        return type(None), ()


def can_be_copied(weight: Tensor) -> bool:
    """Whether WeightCopy can watch the weight: inference tensors have no version, trainable ones no valid copy."""
    return not weight.requires_grad and not weight.is_inference()
