"""The exit codes of the command line."""

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended."""

    DONE = 0
    """Done, and parity holds."""
    NO_PARITY = 1
    """Done, and parity does not hold."""
    USER_ERROR = 2
    """The user must change something: one line on stderr says what."""
    JOBS_FAILED = 3
    """Some jobs of a sweep failed."""
    BUG = 70
    """A bug of gpt2x, with a traceback (EX_SOFTWARE of sysexits.h)."""
    INTERRUPTED = 130
    """Interrupted by Ctrl-C (128 + SIGINT)."""
