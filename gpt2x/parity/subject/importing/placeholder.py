"""What stands for an object that could not be made: it raises when it is used."""

from typing import Any, NoReturn

from gpt2x.parity.subject.code import SubjectError


class Placeholder:
    """Raises SubjectError when it is called, computed with, iterated over, compared or subclassed.

    Attributes and items are placeholders too, so that annotations such as `run: wandb.Run` can be evaluated.
    """

    def __init__(self, why: str) -> None:
        self._why = why

    @property
    def why(self) -> str:
        """One line: what could not be made, and the place in the code."""
        return self._why

    def __getattr__(self, name: str) -> "Placeholder":
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __getitem__(self, key: Any) -> "Placeholder":
        return self

    def __or__(self, other: Any) -> "Placeholder":
        return self

    __ror__ = __or__

    def _raise(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise SubjectError(self._why)


_USES = (
    *("mro_entries", "call", "instancecheck", "subclasscheck", "enter", "exit"),
    *("iter", "next", "len", "contains", "setitem", "delitem"),
    *("bool", "index", "int", "float", "str", "repr", "format", "neg", "abs"),
    *("eq", "ne", "lt", "le", "gt", "ge"),
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"),
    *("radd", "rsub", "rmul", "rtruediv", "rfloordiv", "rmod", "rpow", "rmatmul"),
)
for _use in _USES:
    setattr(Placeholder, f"__{_use}__", Placeholder._raise)
Placeholder.__hash__ = object.__hash__  # type: ignore[method-assign]
