"""The exceptions for what the user must change."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Wrong input. The message is one line: what is wrong, where, and how to fix it. The exit code is 2."""


class DoesNotFitError(UserError):
    """The job needs more memory than this machine has. A sweep counts it as skipped, and not as failed."""


class StoppedError(UserError):
    """The job reached the time limit that it was given on a cluster. A sweep counts it as killed."""


def nearest(name: str, options: Iterable[str]) -> str:
    """'; did you mean X?' for the option that is most similar to `name`; '' if none is similar."""
    match = difflib.get_close_matches(name, list(options), n=1)
    return f"; did you mean {match[0]!r}?" if match else ""
