"""What task=evaluate shows on the console: a progress bar, and then a table of the first texts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from gpt2x.evaluation.rows import EvaluationRow
from gpt2x.reports import console

_MOST_ROWS = 20


@contextmanager
def progress_bar() -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, if that is a terminal; yields the function that takes the windows done and of all."""
    columns = (TextColumn("evaluate"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with console.progress(*columns) as bar:
        task = bar.add_task("evaluate", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def show(rows: list[EvaluationRow]) -> None:
    """Prints the results of the first texts as a table."""
    table = Table(title=Text(f"{rows[0].model} · {rows[0].weights} · {rows[0].dtype}"), title_justify="left")
    for column in ("text", "tokens", "loss", "perplexity", "bits per byte"):
        table.add_column(column, justify="left" if column == "text" else "right")
    for row in rows[:_MOST_ROWS]:
        cells = (f"{row.n_tokens:,}", f"{row.loss:.4f}", f"{row.perplexity:.4g}", f"{row.bits_per_byte:.4f}")
        table.add_row(Text(row.text_id), *cells)
    if len(rows) > _MOST_ROWS:
        table.caption = f"and {len(rows) - _MOST_ROWS} more"
    console.out.print(table)
