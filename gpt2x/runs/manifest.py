"""The machine a job runs on: device and dtype; and the manifest that records it."""

import hashlib
import platform
import subprocess
import threading
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2x import __version__
from gpt2x.checkpoints.locate import find_weights, weight_files
from gpt2x.config.schema import Config
from gpt2x.errors import UserError

if TYPE_CHECKING:
    pass


def manifest(config: dict[str, Any], outcome: Any, seconds: float) -> dict[str, Any]:
    """What it takes to know, later, where a run came from."""
    packages = ("torch", "transformers", "tokenizers", "safetensors", "hydra-core", "omegaconf", "pandas")
    facts: dict[str, Any] = {
        "config": config,
        "versions": {"gpt2x": __version__, "python": platform.python_version()}
        | {package: _version(package) for package in packages},
        "git_commit": _git_commit(),
        "machine": platform.platform(),
        "seconds": seconds,
        "timings": outcome.timings,
    }
    if outcome.device is not None:
        import torch

        facts |= {"device": str(outcome.device), "threads": torch.get_num_threads()}
    if outcome.checkpoint is not None:
        path = outcome.checkpoint.path
        facts["checkpoint"] = {
            "weights": outcome.checkpoint.weights,
            "path": str(path.resolve()) if path else None,
            "sha256": _checksums(path),
        }
    return facts


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # a saved reference needs no transformers
        return None


def begin_hashing(config: Config) -> threading.Thread:
    """The manifest's checksums of local weights, computed in the background: torch is imported meanwhile."""

    def work() -> None:
        with suppress(UserError, OSError):  # of which the task tells
            path = find_weights(config.model, config.weights) if config.weights.source == "local" else None
            _checksums(path)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def _checksums(path: Path | None) -> dict[str, str]:
    """By the names of the files that hold a checkpoint's tensors."""
    files = weight_files(path) if path else []
    return {file.name: _sha256(file, file.stat().st_mtime_ns) for file in files}


@lru_cache(maxsize=8)
def _sha256(file: Path, stamp: int) -> str:
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as stream:
        while block := stream.read(1 << 25):  # in few blocks: between them the thread may wait for Python's lock
            digest.update(block)
    return digest.hexdigest()


def _git_commit() -> str | None:
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        found = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return found.stdout.strip() or None
