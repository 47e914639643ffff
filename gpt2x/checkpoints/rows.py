"""The row type of task=download."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DownloadRow:
    """download.csv: one row per file of the repository."""

    repository: str
    commit: str
    file: str
    n_bytes: int
    checksum: str
    """SHA-256 (64 hexadecimal digits), or for a file outside LFS its SHA-1 as a blob of git (40)."""
