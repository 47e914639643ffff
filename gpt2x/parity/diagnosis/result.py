"""What a diagnosis says."""

from dataclasses import dataclass

from gpt2x.parity.checks import Cause, Check


@dataclass(frozen=True)
class Diagnosis:
    """Where a failed validation first diverges from the reference, and why."""

    site: str
    """`h.0.mlp`; `input of h.1` if a module receives wrong values; `tokenizer: newlines` outside the model."""
    check: Check
    """The check that shows it."""
    cause: Cause
