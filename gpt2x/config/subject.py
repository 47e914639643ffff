"""The group `subject`: the model that task=validate examines."""

import re
from dataclasses import dataclass, field

from omegaconf import MISSING

from gpt2x.config.checks import choose
from gpt2x.errors import UserError


@dataclass
class SubjectConfig:
    """The model that is examined; without a target, gpt2x's own."""

    target: str | None = None
    weights: str = MISSING
    rename: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        choose("subject.weights", self.weights, ("copy", "own"))
        for rule in self.rename:
            if len(rule) != 2:
                raise UserError(f"subject.rename: {rule} is not a pair [regex, replacement]")
            try:
                re.compile(rule[0])
            except re.error as error:
                raise UserError(f"subject.rename: {rule[0]!r} is no regular expression: {error}") from None
