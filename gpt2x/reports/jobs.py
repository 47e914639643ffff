"""What is shown while jobs run elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, TimeElapsedColumn

from gpt2x.reports import console


@contextmanager
def jobs_progress(n_jobs: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal; yields a function that takes how many jobs have ended."""
    columns = (BarColumn(), "{task.completed:.0f} of {task.total:.0f} jobs have ended", TimeElapsedColumn())
    with console.progress(*columns) as bar:
        task = bar.add_task("jobs", total=n_jobs)
        yield lambda ended: bar.update(task, completed=ended)
