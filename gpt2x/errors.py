"""The one exception for what the user must change."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input: one line saying what is wrong, where, and what fixes it. The command line exits with 2."""


class DoesNotFitError(UserError):
    """Too big for this machine; a sweep goes on without it."""


def nearest(name: str, options: Iterable[str]) -> str:
    """'; did you mean X?' for the option most like `name`, or nothing."""
    match = difflib.get_close_matches(name, list(options), n=1)
    return f"; did you mean {match[0]!r}?" if match else ""
