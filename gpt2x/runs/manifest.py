"""manifest.json: the versions, the commit and the machine that a run was made with."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gpt2x import __version__

_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "hydra-core", "omegaconf", "pandas")


def environment() -> dict[str, Any]:
    """Versions of gpt2x, Python and packages, the git commit (None outside a checkout), and the machine."""
    return {
        "versions": {"gpt2x": __version__, "python": platform.python_version()}
        | {package: _version(package) for package in _PACKAGES},
        "git_commit": _git_commit(),
        "machine": platform.platform(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # transformers is not needed with a saved reference
        return None


def _git_commit() -> str | None:
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        found = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return found.stdout.strip() or None
