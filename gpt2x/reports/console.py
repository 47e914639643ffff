"""The two consoles: results on stdout, progress on stderr."""

from rich import console as rich_console
from rich.progress import Progress, ProgressColumn

from gpt2x.paths import silence_stdout

WIDTH_OF_FILES = 120  # columns, where there is no terminal to ask


class Console(rich_console.Console):
    """Prints text as it is (users' texts and paths hold brackets), and lets a run go on when its reader has gone."""

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)
        if not self.is_terminal:
            self.width = WIDTH_OF_FILES

    def on_broken_pipe(self) -> None:
        silence_stdout()


out = Console()
err = Console(stderr=True)


def progress(*columns: ProgressColumn | str) -> Progress:
    """A progress bar that is seen on a terminal only, and gone when done."""
    return Progress(*columns, console=err, transient=True, disable=not err.is_terminal)
