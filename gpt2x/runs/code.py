"""Which code has made a run: what can change its results, and is not one of its settings or input files."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from gpt2x import __version__

_PACKAGE = Path(__file__).resolve().parents[1]
_PACKAGES = ("torch", "transformers")
_SUBJECT = "subject.target"


def code_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """What a run with these settings (flat) would be made with now: versions, and hashes of source.

    A hash is exact where a commit is not: with changes that are not committed, and in an installed wheel.
    """
    subject = {}
    with suppress(OSError):  # the name of a module, rather than of a file; or a file that is not there
        target = str(settings.get(_SUBJECT) or "")
        file = Path(target.rpartition(":")[0] or target).expanduser()  # a recording has no name after its file
        subject[_SUBJECT] = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    return _gpt2x() | subject


@cache
def _gpt2x() -> dict[str, str]:
    """As it is at the first call: what runs in this process is the code that was imported before."""
    digest = hashlib.sha256()
    for file in sorted(_PACKAGE.rglob("*.py")):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(_PACKAGE).as_posix()} {len(content)}\n".encode() + content)
    versions = {package: version for package in _PACKAGES if (version := version_of(package)) is not None}
    return {"gpt2x": __version__, "source": digest.hexdigest()[:12]} | versions


@cache
def version_of(package: str) -> str | None:
    """The version of an installed package; None without it, as transformers is not needed with a saved reference.

    It is the one at the first call: what runs in this process was imported from it.
    """
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def difference(recorded: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """How the code that made a run differs from that of now; None if it does not."""
    keys = dict.fromkeys([*recorded, *now])
    changed = [key for key in keys if recorded.get(key) != now.get(key)]
    return "; ".join(f"{key} {recorded.get(key, 'none')}, now {now.get(key, 'none')}" for key in changed) or None
