"""The two consoles: results on stdout, progress on stderr."""

from rich.console import Console
from rich.progress import Progress, ProgressColumn

WIDTH_OF_FILES = 120  # columns, where there is no terminal to ask

out = Console(highlight=False)
err = Console(highlight=False, stderr=True)
for _console in (out, err):
    if not _console.is_terminal:
        _console.width = WIDTH_OF_FILES


def progress(*columns: ProgressColumn | str) -> Progress:
    """A progress bar that is seen on a terminal only, and gone when done."""
    return Progress(*columns, console=err, transient=True, disable=not err.is_terminal)
