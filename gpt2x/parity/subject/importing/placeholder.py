"""What stands for an object that could not be made: it raises when it is used."""

import inspect
from typing import Any, NoReturn

from gpt2x.parity.subject.code import SubjectError

# Packages that a model may call without computing anything with what they return.
_HARMLESS = frozenset(
    (
        *("loguru", "structlog", "wandb", "icecream", "termcolor", "colorama", "tensorboard", "tensorboardX"),
        *("beartype", "typeguard", "jaxtyping", "tiktoken", "sentencepiece"),
    )
)

# Packages of models that use what is in them, by the name of the module -> that by which pip knows it.
_PACKAGES = {
    name: name.replace("_", "-")
    for name in (
        *("einops", "einx", "fancy_einsum", "rotary_embedding_torch", "transformer_lens", "torchtune", "xformers"),
        *("lightning", "pytorch_lightning", "x_transformers", "flash_attn", "bitsandbytes", "peft", "fairscale"),
        *("accelerate", "timm", "sentencepiece", "jaxtyping", "beartype", "local_attention", "opt_einsum", "munch"),
    )
} | {"yaml": "pyyaml", "ml_collections": "ml_collections"}


class Placeholder:
    """Raises SubjectError when it is called, computed with, iterated over or subclassed.

    Attributes and items are placeholders too, so that annotations such as `run: wandb.Run` can be evaluated.
    """

    def __init__(self, why: str, *, harmless: bool = False) -> None:
        """`why` is one line. A harmless one may be called: it returns the function that it is given, or itself."""
        self._why, self._harmless = why, harmless

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

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._harmless:
            self._raise()
        return args[0] if len(args) == 1 and inspect.isroutine(args[0]) else self

    def _raise(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise SubjectError(self._why)


_USES = (
    *("mro_entries", "instancecheck", "subclasscheck", "enter", "exit"),
    *("iter", "next", "len", "contains", "setitem", "delitem"),
    *("bool", "index", "int", "float", "str", "repr", "format", "neg", "abs"),
    *("lt", "le", "gt", "ge"),
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"),
    *("radd", "rsub", "rmul", "rtruediv", "rfloordiv", "rmod", "rpow", "rmatmul"),
)
for _use in _USES:
    setattr(Placeholder, f"__{_use}__", Placeholder._raise)


def stand_in_for(error: BaseException, why: str) -> Placeholder:
    """What stands for the names of a statement that has raised this error."""
    missing = ((error.name if isinstance(error, ModuleNotFoundError) else None) or "").partition(".")[0]
    remedy = f": pip install {_PACKAGES[missing]}" if missing in _PACKAGES else ""
    return Placeholder(why + remedy, harmless=missing in _HARMLESS)
