"""The console output of task=report."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import TextColumn, TimeElapsedColumn

from gpt2x.paths import shown
from gpt2x.reports import console
from gpt2x.reports.page.overview import counts_of
from gpt2x.reports.page.study import Study

_MOST_NOTES = 5


@contextmanager
def progress(what: str) -> Iterator[None]:
    """What is being done, and for how long, on the terminal."""
    with console.progress(TextColumn("{task.description}"), TimeElapsedColumn()) as bar:
        bar.add_task(what, total=None)
        yield


def show(study: Study, page: Path) -> None:
    """Prints what could not be read, the number of runs per status, and where the page is."""
    for note in study.notes[:_MOST_NOTES]:
        console.err.print(f"not on the page: {note}", soft_wrap=True)
    if len(study.notes) > _MOST_NOTES:
        console.err.print(
            f"and {len(study.notes) - _MOST_NOTES} more files that could not be read; the page lists them"
        )
    counts = ", ".join(f"{count} {status}" for status, count in counts_of(study.runs))
    console.out.print(f"{len(study.runs)} run{'' if len(study.runs) == 1 else 's'}: {counts or 'none could be read'}")
    console.out.print(f"page  {shown(page)}", soft_wrap=True)
