"""The row types of weights.csv and download.csv. Needs no torch."""

from dataclasses import dataclass
from enum import StrEnum


class Step(StrEnum):
    """What was done to a tensor on the way from the file to the model."""

    RENAME = "rename"
    """The file has it under another name than Hugging Face."""
    TRANSPOSE = "transpose"
    """The file has it as [in, out] (Conv1D), and the model as [out, in] (nn.Linear)."""
    MERGE = "merge"
    """The product of an adapter was added to it."""
    CUT = "cut"
    """Rows of the vocabulary that pad it were left out."""
    CAST = "cast"
    """Its dtype in the file is not the one that was asked for."""
    ZERO = "zero"
    """The file has no such bias, and states that the model has none: a bias of zeros is the same function."""
    TIE = "tie"
    """The head is wte, and has no tensor of its own in the model."""
    DROP = "drop"
    """A buffer that holds no weight: the causal mask of old files."""


@dataclass(frozen=True)
class WeightRow:
    """weights.csv: one row per tensor of the file, in its order, and per tensor that the file leaves out."""

    source: str | None
    """The name in the file; empty for a tensor that the file leaves out."""
    name: str | None
    """Hugging Face's name; empty for a tensor that is dropped."""
    shape: str | None
    """In the file, such as 768x2304."""
    dtype: str | None
    """In the file."""
    done: str
    """The steps, separated by spaces: see Step."""
    norm: float | None
    """The square root of the sum of squares; only in task=inspect and task=validate, as are checksums."""
    sha256: str | None
    """The SHA-256 of the tensor's bytes, little-endian and in the dtype of the file, in Hugging Face's layout and
    without padding: the same weights have the same checksums in every format that does not round them."""


@dataclass(frozen=True)
class DownloadRow:
    """download.csv: one row per file of the repository."""

    repository: str
    commit: str
    file: str
    n_bytes: int
    checksum: str
    """SHA-256 (64 hexadecimal digits), or for a file outside LFS its SHA-1 as a blob of git (40)."""
