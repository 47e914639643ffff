"""The two consoles: results on stdout, progress on stderr."""

from typing import Any

from rich import console as rich_console
from rich.progress import Progress, ProgressColumn

from gpt2x.paths import output

WIDTH_OF_FILES = 120  # columns, if the output is not a terminal


class Console(rich_console.Console):
    """Prints text unchanged, as it may contain brackets. Output that cannot be written does not end the run."""

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)
        if not self.is_terminal:
            self.width = WIDTH_OF_FILES

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except OSError as error:  # the disk that it is written to is full, for example
            output.give_up(error)

    def on_broken_pipe(self) -> None:
        output.give_up(BrokenPipeError())


out = Console()
err = Console(stderr=True)


def progress(*columns: ProgressColumn | str) -> Progress:
    """A progress bar that is shown on a terminal only, and removed when the work is done."""
    return Progress(*columns, console=err, transient=True, disable=not err.is_terminal)
