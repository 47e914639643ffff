"""Files: where gpt2x's own lie, how paths are shown, how text is read, and how files are written."""

import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from gpt2x.errors import UserError

_UMASK = os.umask(0)
os.umask(_UMASK)
_PACKAGE = Path(__file__).resolve().parent


def bundled(folder: str) -> Path:
    """Absolute path of the bundled `conf` or `data`: beside the package in a checkout, inside it in a wheel."""
    inside = _PACKAGE / folder
    return inside if inside.is_dir() else _PACKAGE.parent / folder


def shown(path: Path) -> str:
    """A path as people type it: relative if it is below the launch directory, else absolute."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def expanded(path: str | os.PathLike[str], setting: str) -> Path:
    """The path that a setting names, with `~` replaced by the home directory; UserError if there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{setting}={path}: no such home directory") from None


def read_utf8(path: Path, setting: str) -> str:
    """The text of a file that a setting names, without a byte order mark. `~` is the home directory.

    Raises UserError if the file cannot be read or is not UTF-8.
    """
    try:
        return utf8(expanded(path, setting).read_bytes(), f"{setting}={path}")
    except OSError as error:
        raise UserError(f"{setting}={path}: {error.strerror}") from None


def utf8(content: bytes, where: str) -> str:
    """The text of the content of a file, without a byte order mark; UserError, which names `where`, if not UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 (byte {error.start})") from None


@cache
def standard_input() -> bytes:
    """All of standard input; empty if it is closed. It is read once, for all jobs of this process."""
    return sys.stdin.buffer.read() if sys.stdin is not None else b""


def is_utf8(text: str) -> bool:
    """Whether a text can be encoded. Bytes that are not UTF-8 reach Python's strings as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` with the path of a temporary file, which is then moved to `path`.

    So a kill, Ctrl-C or an error leaves the old file, or none. Raises UserError if the file cannot be written
    (because the disk is full, for example).
    """
    from safetensors import SafetensorError

    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write(temporary)
        temporary.chmod(0o666 & ~_UMASK)  # safetensors makes files that only their owner can read
        os.replace(temporary, path)
    except (
        OSError,
        RuntimeError,
        SafetensorError,
    ) as error:  # torch and safetensors raise the latter two for an OSError
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise UserError(f"cannot write {shown(path)}: {reason}") from None
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file as write_whole does, with its line ends unchanged."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline=""))


def silence_stdout() -> None:
    """Discards what is printed from now on: for a reader that has closed the pipe (`gpt2x ... | head`)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
