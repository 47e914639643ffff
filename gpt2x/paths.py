"""Files: where gpt2x's own lie, how paths are shown, how text is read, and how files are written."""

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from glob import escape
from pathlib import Path
from typing import TextIO

from gpt2x.errors import UserError
from gpt2x.memory import is_out_of_memory

_UMASK = os.umask(0)
os.umask(_UMASK)
_PACKAGE = Path(__file__).resolve().parent


def bundled(folder: str) -> Path:
    """Absolute path of the bundled `conf` or `data`: beside the package in a checkout, inside it in a wheel."""
    inside = _PACKAGE / folder
    return inside if inside.is_dir() else _PACKAGE.parent / folder


def bundled_file(path: str) -> str:
    """Absolute path of a bundled file, such as `conf/experiment/prompts.csv`."""
    folder, _, rest = path.partition("/")
    return str(bundled(folder) / rest)


def shown(path: Path) -> str:
    """A path as people type it: relative if it is below the launch directory, else absolute."""
    try:
        path, launch = path.absolute(), Path.cwd()
    except FileNotFoundError:  # the launch directory has been removed
        return str(path)
    return str(path.relative_to(launch)) if path.is_relative_to(launch) else str(path)


def expanded(path: str | os.PathLike[str], setting: str) -> Path:
    """The path that a setting names, with `~` replaced by the home directory; UserError if there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{setting}={path}: no such home directory") from None


def check_regular(file: Path) -> None:
    """Raises UserError where there is no file, and for a folder, a pipe or a device, of which some never end."""
    if not file.is_file():
        raise UserError(f"{shown(file)}: {'not a regular file' if file.exists() else 'no such file'}")


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
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` with the path of a temporary file of its own, which is then moved to `path`.

    So a kill, Ctrl-C or an error leaves the old file, or none. Raises UserError if the file cannot be written
    (because the disk is full, for example).
    """
    temporary = _temporary(path)
    try:
        with reporting_errors(path):
            write(temporary)
            temporary.chmod(0o666 & ~_UMASK)  # safetensors makes files that only their owner can read
            os.replace(temporary, path)
    finally:
        with suppress(OSError):  # the folder may have become a file, or another user's
            temporary.unlink(missing_ok=True)


@contextmanager
def reporting_errors(path: Path) -> Iterator[None]:
    """Raises UserError for an error while the file is written."""
    from safetensors import SafetensorError

    try:
        yield
    except (
        OSError,
        RuntimeError,
        SafetensorError,
    ) as error:  # torch and safetensors raise the latter two for an OSError
        if is_out_of_memory(error):
            raise
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise UserError(f"cannot write {shown(path)}: {reason}") from None


def _temporary(path: Path) -> Path:
    """A file that no other process uses, beside `path`, so that it can be moved to `path` at once."""
    return path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")


def remove_temporaries(folder: Path, names: Iterable[str]) -> None:
    """Removes what killed processes left of files and folders of these names, in a folder that nobody else writes.

    If a name is that of a folder, the temporary files of all files in it are removed.
    """
    for name in names:
        for temporary in (*folder.glob(f".{escape(name)}.*.tmp"), *(folder / name).glob(".*.tmp")):
            with suppress(OSError):
                shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file as write_whole does, with its line ends unchanged."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline=""))


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Writes a UTF-8 file as write_text does, without having all of it in memory."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            stream.writelines(lines)

    write_whole(path, write)


def launch_directory_exists() -> bool:
    """Whether the directory that relative paths start from still exists."""
    try:
        return Path.cwd().is_dir()
    except FileNotFoundError:
        return False


def silence(stream: TextIO) -> None:
    """Discards what is printed to stdout or stderr from now on."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@dataclass
class Output:
    """Standard output: what a run prints must not end it, as its results are in files."""

    lost: str | None = None
    """Why a part of the output is lost; None also if its reader has closed the pipe (`gpt2x ... | head`)."""

    def give_up(self, error: OSError) -> None:
        """Discards what is printed from now on, after printing has failed with this error."""
        if not isinstance(error, BrokenPipeError):
            self.lost = error.strerror
        silence(sys.stdout)


output = Output()
