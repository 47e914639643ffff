"""Makes a user's model for an architecture, and checks that it has the architecture's size."""

from collections.abc import Callable
from typing import Any

from torch import nn

from gpt2x.errors import UserError
from gpt2x.model.config import GPT2Config
from gpt2x.parity.subject.code import SubjectError, contained, subject_code
from gpt2x.parity.subject.constructing.arguments import calls
from gpt2x.parity.subject.constructing.size import seen_in


class FixedSizeError(UserError):
    """A model has sizes of its own, whatever it is given."""

    def __init__(self, name: str, own: GPT2Config | None, sizes: dict[str, int | None]) -> None:
        """`own` is its architecture, None if that cannot be seen; `sizes` are those that can."""
        self.own, self.sizes = own, sizes
        known = ", ".join(f"{key}={value}" for key, value in sizes.items() if value is not None)
        super().__init__(f"{name}: its code fixes its size ({known}): give it a checkpoint of that size")


def make_model(name: str, make: Callable[..., Any], config: GPT2Config) -> tuple[nn.Module, str]:
    """The model that a class or function makes, and what it was given.

    Raises SubjectError if its code fails or returns anything but an nn.Module, and FixedSizeError if the model has
    another size.
    """
    errors: list[SubjectError] = []
    fixed: FixedSizeError | None = None
    with contained():
        for call in calls(make, config):
            try:
                with subject_code():
                    module = make(*call.positional, **call.named)
            except SubjectError as error:
                errors.append(error)
                continue
            if not isinstance(module, nn.Module):
                raise SubjectError(f"makes a {type(module).__name__}, not a torch.nn.Module")
            seen = seen_in(module)
            if not seen.differs_from(config):
                return module, str(call)
            fixed = fixed or FixedSizeError(name, seen.config(config), vars(seen))
    raise fixed or errors[0]
