"""gpt2x: run, check and sample from GPT-2.

The functions of the Python API are loaded when they are first used: importing this package never imports torch.
"""

import random
from typing import TYPE_CHECKING, Any

from gpt2x.errors import UserError

if TYPE_CHECKING:
    from gpt2x.api import Validation, evaluate, generate, load, read_runs, validate

__version__ = "0.1.0"

__all__ = ["UserError", "Validation", "evaluate", "generate", "load", "read_runs", "validate"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'gpt2x' has no attribute {name!r}")
    drawn = random.getstate()  # a library that is imported draws random numbers
    from gpt2x import api

    random.setstate(drawn)
    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
