"""The group `subject`: the model, or the recorded answers of one, that task=validate examines."""

import re
from dataclasses import dataclass, field

from omegaconf import MISSING

from gpt2x.config.checks import at_least, choose
from gpt2x.errors import UserError


class _Import:
    """The setting `import`. As it is a keyword of Python, no class body and no parameter list can hold it."""

    @property
    def import_mode(self) -> str:
        """`definitions` or `whole`. Raises UserError if it is neither."""
        value = str(vars(self).get("import", "definitions"))
        choose("subject.import", value, ("definitions", "whole"))
        return value


_Import.__annotations__ = {"import": str}
setattr(_Import, "import", field(default="definitions", init=False, repr=False, compare=False))
dataclass(_Import)


@dataclass
class SubjectConfig(_Import):
    """The model that is examined; without a target, gpt2x's own.

    Its kind is `module`, code that makes a torch.nn.Module, or `recorded`, a file of what any program has answered.
    """

    target: str | None = None
    weights: str = MISSING
    rename: list[list[str]] = field(default_factory=list)
    import_seconds: float = 60.0
    answer_seconds: float = 300.0
    memory_gib: float | None = None
    kind: str = "module"

    def __post_init__(self) -> None:
        choose("subject.kind", self.kind, ("module", "recorded"))
        choose("subject.weights", self.weights, ("copy", "own"))
        at_least("subject.import_seconds", self.import_seconds, 1)
        at_least("subject.answer_seconds", self.answer_seconds, 1)
        if self.memory_gib is not None:
            at_least("subject.memory_gib", self.memory_gib, 0.5)
        if self.kind == "module" and (self.target or "").endswith(".safetensors"):
            raise UserError(f"subject.target={self.target}: a file of recorded answers; add subject=recorded")
        if self.kind == "recorded" and self.target is None:
            raise UserError("subject=recorded: name the recording by subject.target=FILE.safetensors")
        if self.kind == "recorded" and self.weights == "own":
            raise UserError("subject.weights=own: a recording holds no weights; leave it out")
        for rule in self.rename:
            if len(rule) != 2:
                raise UserError(f"subject.rename: {rule} is not a pair [regex, replacement]")
            try:
                re.compile(rule[0])
            except re.error as error:
                raise UserError(f"subject.rename: {rule[0]!r} is no regular expression: {error}") from None
