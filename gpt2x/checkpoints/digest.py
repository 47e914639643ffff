"""Weights identified by content: the SHA-256 of each file. Needs no torch."""

import hashlib
import threading
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from gpt2x.checkpoints.locate import find_local_weights, small_files, weight_files
from gpt2x.config.model import ModelConfig
from gpt2x.config.weights import WeightsConfig
from gpt2x.errors import UserError
from gpt2x.paths import check_regular

_BLOCK = 1 << 25  # bytes per read; between reads, a background thread may have to wait for Python's lock


def file_digests(files: Iterable[Path]) -> dict[str, str]:
    """File name -> SHA-256 in hexadecimal. A file is read once per process, until its size or time changes.

    Raises OSError for a file that cannot be read, and UserError for a pipe or a device, which might never end.
    """
    digests = {}
    for file in files:
        stat = file.stat()
        check_regular(file)
        digests[file.name] = _sha256(file.absolute(), stat.st_size, stat.st_mtime_ns)
    return digests


def weight_digests(path: Path | None) -> dict[str, str]:
    """file_digests of the files that hold a checkpoint's tensors; empty for None, that is for random weights.

    Raises UserError for a directory without weights, and OSError for a file that cannot be read.
    """
    return file_digests(weight_files(path)) if path is not None else {}


def checkpoint_digests(path: Path | None) -> dict[str, str]:
    """weight_digests, and those of the files beside them that state the architecture and the tokenizer.

    Raises what weight_digests raises.
    """
    if path is None:
        return {}
    return weight_digests(path) | file_digests(small_files(path))


def begin_digesting(model: ModelConfig, weights: WeightsConfig) -> threading.Thread:
    """A thread, started, that computes the digests of local weights, so that they are known once they are needed.

    It reports no error: the task does, when it loads the weights.
    """

    def work() -> None:
        with suppress(UserError, OSError):
            checkpoint_digests(find_local_weights(model, weights))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@lru_cache(maxsize=64)
def _sha256(file: Path, size: int, time: int) -> str:
    """The size and time are part of the cache's key only."""
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
