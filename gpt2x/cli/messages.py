"""Exceptions as one line for the user: what is wrong, where, and what to change."""

import errno
import sys
import traceback

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from gpt2x.cli.extras import missing_plugin
from gpt2x.config.settings import unused
from gpt2x.config.tasks import SCHEMAS
from gpt2x.errors import UserError, nearest
from gpt2x.memory import is_out_of_memory
from gpt2x.paths import silence
from gpt2x.visible import visible

# The errors of a folder that cannot be made, or in which no file can be written.
_UNWRITABLE = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
    *(errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EFBIG),
}


complaints: list[str] = []
"""The lines that `complain` has printed."""


def complain(message: str) -> None:
    """Prints the line on stderr, unless this command has printed it before: of a job that cannot be collected, too."""
    line = visible(one_line(message))
    if line not in complaints:
        complaints.append(line)
        _print_error(f"gpt2x: error: {line}\n")


def say(message: str) -> None:
    """Prints a line that is no error on stderr."""
    _print_error(f"gpt2x: {visible(one_line(message))}\n")


def show_bug(error: BaseException) -> None:
    """Prints the traceback on stderr."""
    _print_error("".join(traceback.format_exception(error)))


def _print_error(text: str) -> None:
    try:
        print(text, end="", file=sys.stderr, flush=True)
    except OSError:  # there is no place left to say it: the exit code remains
        silence(sys.stderr)


def one_line(message: str) -> str:
    """The message with all white space, line ends included, as single spaces."""
    return " ".join(message.split())


def message_of(error: BaseException) -> str | None:
    """The message for an error that the user can correct; None for a bug."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return _explain(error)
    if isinstance(error, OSError) and error.errno in _UNWRITABLE:
        return unwritable(error)
    if is_out_of_memory(error):
        return "there is not enough memory; end other programs, or raise the limit (ulimit -v)"
    return None


def unwritable(error: OSError) -> str:
    """The message for a folder that cannot be made, or in which no file can be written."""
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{error.strerror}; choose another folder with hydra.run.dir=DIR"


def _explain(error: Exception) -> str:
    """One line for an error of Hydra or OmegaConf, whose own messages have several lines."""
    if isinstance(error, MissingConfigException) and (missing := missing_plugin(error.missing_cfg_file or "")):
        return missing
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return f"{group}={name}: not one of {', '.join(error.options)}{nearest(name, error.options)}"
    if isinstance(error, OverrideParseException):  # of a preset: those of the command line are parsed before
        return f"cannot parse {error.override!r}"
    line = str(error).partition("\n")[0]
    if line.startswith("Ambiguous value"):
        return f"{line}: add -m for one job per value; for one text, add quotes: 'KEY=\"TEXT\"'"
    cause = error.__cause__ or error
    if isinstance(cause, UserError):  # of a resolver of gpt2x
        return str(cause)
    message = str(cause).partition("\n")[0] or type(cause).__name__
    key = getattr(cause, "full_key", None)
    task = getattr(getattr(cause, "object_type", None), "name", None)
    if task in SCHEMAS and key not in (None, "task"):
        return unused(task, key)
    return f"{key}: {message}" if key else message
