"""manifest.json: the versions, the commit and the machine that a run was made with."""

import platform
import subprocess
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gpt2x import __version__
from gpt2x.runs.code import version_of

_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "hydra-core", "omegaconf", "pandas")


def environment() -> dict[str, Any]:
    """Versions of gpt2x, Python and packages, the machine, and the git commit of the code."""
    return {
        "versions": {"gpt2x": __version__, "python": platform.python_version()}
        | {package: version_of(package) for package in _PACKAGES},
        "machine": platform.platform(),
    } | asdict(_git())


@dataclass(frozen=True)
class _Git:
    """The commit that the code is from. Both are None outside a checkout, and where git cannot read it."""

    git_commit: str | None = None
    git_dirty: bool | None = None
    """Whether tracked files differ from the commit."""


@cache
def _git() -> _Git:
    """As it is at the first call: what runs in this process is the code that was imported before."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return _Git()
    # Without optional locks, it does not disturb a git command that the user runs at the same time.
    status = ("--no-optional-locks", "status", "--porcelain=v2", "--branch", "--untracked-files=no")
    try:
        found = subprocess.run(["git", "-C", root, *status], capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return _Git()
    head = "# branch.oid "
    lines = found.stdout.splitlines()
    commit = next((line.removeprefix(head) for line in lines if line.startswith(head)), None)
    return _Git(commit, any(not line.startswith("#") for line in lines))
