"""What task=generate shows on the console: the text of one sample as it comes, or a progress bar and then a table."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.segment import Segment, Segments
from rich.style import Style
from rich.table import Column, Table
from rich.text import Text

from gpt2x.decoding.rows import GenerationRow
from gpt2x.decoding.run import Generated, OnProgress, Progress
from gpt2x.decoding.stop import StopStrings
from gpt2x.reports import console
from gpt2x.tokenizer import Tokenizer

_MOST_ROWS = 20  # of the table on the console


class Stream:
    """A single sample: its prompt with the first token, and then its text as it is generated."""

    def __init__(self, prompt: str, tokenizer: Tokenizer, stop: list[str]) -> None:
        self.eos_id, self.stop = tokenizer.eos_id, StopStrings(stop, tokenizer.decode)
        self.decode_next = tokenizer.stream()
        self.prompt, self.text, self.printed = prompt, "", 0

    def update(self, progress: Progress) -> None:
        """Prints what the newest token adds, but no text that may be the beginning of a stop string."""
        if progress.token is None:
            return
        self._begin()
        if progress.token == self.eos_id:
            return
        self.text += self.decode_next(progress.token)
        visible = self.stop.visible(self.text)
        _write(self.text[self.printed : visible])
        self.printed = visible

    def end(self, row: GenerationRow) -> None:
        """Prints the rest: for example U+FFFD, where the last token is only a part of a character."""
        self._begin()
        _write(row.completion[self.printed :] + "\n")

    def _begin(self) -> None:
        if self.prompt:
            _write(self.prompt, Style(bold=True))
            self.prompt = ""


def _write(text: str, style: Style | None = None) -> None:
    """Prints text: rich's own Text would expand tabs."""
    console.out.print(Segments([Segment(text, style)]), soft_wrap=True)


@contextmanager
def progress_bar(n_samples: int, max_new_tokens: int) -> Iterator[OnProgress]:
    """A progress bar on stderr, if that is a terminal; yields the function that updates it."""
    columns = (
        TextColumn("{task.fields[done]}/{task.fields[samples]} samples"),
        BarColumn(),
        TextColumn("{task.fields[speed]:,.0f} tokens/s"),
        TimeRemainingColumn(),
    )
    start = time.perf_counter()
    with console.progress(*columns) as bar:
        task = bar.add_task("generate", total=n_samples, done=0, samples=n_samples, speed=0.0)

        def update(progress: Progress) -> None:
            completed = progress.n_finished + progress.n_in_flight / max_new_tokens
            speed = progress.n_new_tokens / (time.perf_counter() - start)
            bar.update(task, completed=completed, done=progress.n_finished, speed=speed)

        yield update


def show(generated: Generated) -> None:
    """Prints the first samples as a table, and how many there are."""
    rows = generated.generations
    if not rows:
        console.out.print("no samples: there are more shards than blocks of prompts")
        return
    if console.out.is_terminal:
        console.out.print(_table(rows[:_MOST_ROWS]))
    else:
        console.out.print(_plain_table(rows[:_MOST_ROWS]))
    if len(rows) > _MOST_ROWS:
        console.out.print(f"and {len(rows) - _MOST_ROWS} more")
    n, seconds = generated.n_new_tokens, generated.seconds
    console.out.print(f"{len(rows)} samples: {n:,} new tokens in {seconds:.1f} s, {n / seconds:,.0f} tokens per second")


def _table(rows: list[GenerationRow]) -> Table:
    table = Table("prompt", "sample", "text", "tokens", "ended by", "logprob")
    for row in rows:
        text = Text.assemble(console.as_text(row.prompt, "bold"), console.as_text(row.completion))
        cells = (str(row.sample), text, str(row.n_new_tokens), row.finish_reason, f"{row.logprob:.1f}")
        table.add_row(console.as_text(row.prompt_id), *cells)
    return table


def _plain_table(rows: list[GenerationRow]) -> Table:
    """One line per sample, with the beginnings of the texts."""
    columns = (Column("id", max_width=12), Column("sample"), Column("prompt", ratio=1), Column("completion", ratio=3))
    table = console.plain_table(*columns)
    for row in rows:
        table.add_row(*map(console.as_line, (row.prompt_id, str(row.sample), row.prompt, row.completion)))
    return table
