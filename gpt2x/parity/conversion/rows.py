"""The row types of task=export."""

from dataclasses import dataclass
from enum import StrEnum


class Found(StrEnum):
    """What a reader found in the place of a tensor."""

    EQUAL = "equal"
    """The same bits."""
    ROUNDED = "rounded"
    """The values rounded to the dtype in which the format stores them, and no further."""
    WRONG = "wrong"
    MISSING = "missing"
    UNEXPECTED = "unexpected"


class Verdict(StrEnum):
    PASS = "pass"
    FAIL = "fail"


@dataclass(frozen=True)
class TensorRow:
    """tensors.csv: one row per reader and tensor."""

    reader: str
    tensor: str
    """The name in Hugging Face's checkpoints."""
    shape: str
    """In Hugging Face's layout, such as 256x768."""
    dtype: str
    """In which the file stores it; int8 in GGUF is q8_0."""
    found: Found
    max_abs_error: float | None
    """The largest absolute difference from the source."""
    relative_error: float | None
    """That, divided by the largest absolute value of the source."""


@dataclass(frozen=True)
class ReaderRow:
    """certificate.csv: one row per reader of the file that was written."""

    reader: str
    version: str
    independent: bool
    """Whether it is another program than gpt2x."""
    verdict: Verdict
    tensors: int | None = None
    """How many tensors were compared; empty for a reader that does not show them."""
    tensors_equal: int | None = None
    tensors_rounded: int | None = None
    max_abs_error: float | None = None
    """The largest of all tensors."""
    max_abs_logit_difference: float | None = None
    """From the logits of the source (from its log-probabilities, for a reader that returns those)."""
    mean_kl: float | None = None
    """Mean over the positions of KL(source || reader), in nats."""
    top1_agreement: float | None = None
    relative_difference: float | None = None
    """The largest difference of the logits from those of gpt2x with the tensors of the file, divided by the largest."""
    tolerance: float | None = None
    """For relative_difference."""
    texts: int | None = None
    """How many texts were encoded; empty for a reader without a tokenizer."""
    texts_same: int | None = None
    """How many of them gave the token ids of the source's tokenizer."""
    note: str | None = None
    """What is wrong."""
