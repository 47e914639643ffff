"""The two consoles: results on stdout, progress on stderr."""

import logging
import multiprocessing
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from rich import console as rich_console
from rich.console import ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

from gpt2x.paths import output, shown, silence
from gpt2x.visible import visible

T = TypeVar("T")
WIDTH_OF_FILES = 120  # columns, if the output is not a terminal
_WIDTH_OF_PLAIN = 80


class Console(rich_console.Console):
    """Prints text unchanged, as it may contain brackets, but its control characters visibly.

    Output that cannot be written does not end the run.
    """

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)
        if not self.is_terminal:
            self.width = WIDTH_OF_FILES

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is printed goes through here, whatever it is. Segments with `control` are rich's own commands."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)

    def render_str(self, text: str, **options: Any) -> Text:
        """Here too, as rich's Text leaves some control characters out."""
        return super().render_str(visible(text), **options)

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except OSError as error:  # the disk that it is written to is full, for example
            self._give_up(error)

    def on_broken_pipe(self) -> None:
        self._give_up(BrokenPipeError())

    def _give_up(self, error: OSError) -> None:
        if self.stderr:
            silence(sys.stderr)  # progress, and where results are: nothing is lost that is not in files
        else:
            output.give_up(error)


out = Console()
err = Console(stderr=True)
# A worker of a launcher shares the terminal with other workers: their texts and progress bars would be mixed.
out.quiet = err.quiet = multiprocessing.parent_process() is not None


class _Log(logging.Handler):
    """Shows what gpt2x logs, each message once per process: warnings, and on a terminal other messages too."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        is_warning = record.levelno >= logging.WARNING
        if (err.is_terminal or is_warning) and message not in self.shown:
            self.shown.add(message)
            err.print(f"gpt2x: {'warning: ' if is_warning else ''}{message}", soft_wrap=True)


_LOG = _Log()


def show_log() -> None:
    """From now on, shows what gpt2x logs. Calling it again changes nothing."""
    log = logging.getLogger("gpt2x")
    log.setLevel(logging.INFO)
    log.addHandler(_LOG)


def as_text(text: str, style: str = "") -> Text:
    """Text of unknown origin, for a table: with visible control characters, which count for the widths of columns."""
    return Text(visible(text), style)


def as_line(text: str) -> Text:
    """As `as_text`, in one line: with a visible sign for each newline."""
    return as_text(text.replace("\n", "⏎ "))


def plain_table(*columns: Column) -> Table:
    """A table of 80 columns without lines between cells, for terminals and for files.

    A cell has one line. Table columns with a ratio share the width that the others leave, and their cells are cut off
    where that is too little.
    """
    table = Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0), width=_WIDTH_OF_PLAIN)
    for column in table.columns:
        column.no_wrap, column.overflow = True, "ellipsis"
    return table


def show_folder(folder: Path, on_stderr: bool = False) -> None:
    """The last line of a run or sweep: where its results are."""
    console = err if on_stderr else out
    console.print(f"results in {shown(folder)}", soft_wrap=True)


def steps(each: Iterable[T], n: int, what: str) -> Iterable[T]:
    """The n elements, with a progress bar on a terminal while they are used."""
    with progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()) as bar:
        yield from bar.track(each, n, description=what)


def progress(*columns: ProgressColumn | str) -> Progress:
    """A progress bar that is shown on a terminal only, and removed when the work is done."""
    return Progress(*columns, console=err, transient=True, disable=err.quiet or not err.is_terminal)
