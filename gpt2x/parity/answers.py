"""What a model or a module answers with: a tensor, or something that holds tensors."""

from collections.abc import Iterator, Mapping, MutableMapping
from copy import copy
from typing import Any

from torch import Tensor

_DEPTH = 4
"""What is nested deeper is left out."""


def first_tensor(answer: Any) -> Tensor | None:
    """The answer itself, its `logits`, or the first of several tensors; None if it holds none."""
    return next(tensors_in(answer), None)


def tensors_in(answer: Any, depth: int = _DEPTH) -> Iterator[Tensor]:
    """The tensors in an answer; what is called `logits` comes first."""
    if isinstance(answer, Tensor):
        yield answer
    elif depth > 1:
        for each in _held_by(answer).values():
            yield from tensors_in(each, depth - 1)


def with_another(answer: Any, old: Tensor, new: Tensor, depth: int = _DEPTH) -> Any:
    """An answer with another tensor in the place of one in it."""
    if answer is old:
        return new
    held = _held_by(answer) if depth > 1 else {}
    changes = {key: y for key, each in held.items() if (y := with_another(each, old, new, depth - 1)) is not each}
    if not changes:
        return answer
    if isinstance(answer, (tuple, list)):
        values = (held | changes).values()
        return type(answer)(*values) if hasattr(answer, "_fields") else type(answer)(values)
    answer = copy(answer)
    (answer if isinstance(answer, MutableMapping) else vars(answer)).update(changes)
    return answer


def _held_by(answer: Any) -> dict[Any, Any]:
    """What a sequence, a dictionary or an object holds, by its place, key or attribute, `logits` first."""
    if isinstance(answer, Tensor | type):
        return {}
    if isinstance(answer, (tuple, list)):
        return dict(enumerate(answer))
    held = dict(answer) if isinstance(answer, Mapping) else dict(getattr(answer, "__dict__", {}))
    if not isinstance(answer, Mapping) and hasattr(answer, "logits"):  # also a property, or a slot
        held["logits"] = answer.logits
    return {"logits": held.pop("logits"), **held} if "logits" in held else held
