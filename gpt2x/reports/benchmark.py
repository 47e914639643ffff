"""The console output of benchmark: a table, versions and lower bounds, other tokens, and engines that failed."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from gpt2x.benchmark.agreement import Difference
from gpt2x.benchmark.benchmark import Benchmark
from gpt2x.benchmark.participants import Progress
from gpt2x.reports import console


@contextmanager
def progress() -> Iterator[Progress]:
    """A progress bar on the terminal, as the callback that run_benchmark takes."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with console.progress(*columns) as bar:
        step = bar.add_task("starting", total=None)
        yield lambda what, done, total: bar.update(step, description=what, completed=done, total=total)


def show(result: Benchmark) -> None:
    """Prints the result."""
    for each in result.left_out:
        if not each.failed:
            console.out.print(f"{each.variant}: left out, {each.reason}", soft_wrap=True)
    console.out.print(_table(result))
    for line in _facts(result):
        console.out.print(line, soft_wrap=True)
    for line in _difference_lines(result.differences):
        console.out.print(Text(line, "yellow"), soft_wrap=True)
    for each in result.failed:
        console.out.print(f"FAIL  {each.variant}: left out, {each.reason}", soft_wrap=True)
    if result.wrong_tokens and result.baseline is not None:
        console.out.print(
            f"FAIL  gpt2x generates other tokens than {result.baseline.engine}, in float32 and not at near ties"
        )


def title_of(result: Benchmark) -> str:
    """What was measured, and on which machine, in one line."""
    tokens = f"{result.prompt_tokens} + {result.new_tokens} tokens"
    return f"{result.model} · {result.weights} · {tokens} · {result.machine}"


def _table(result: Benchmark) -> Table:
    table = Table(title=console.as_text(title_of(result)), title_justify="left", title_style="bold")
    times = ("ms/step", "p10", "p90", "tokens/s", "ratio", "first ms")
    for column in ("batch", "engine", "dtype", *times, "peak MB", "load s", "same"):
        table.add_column(column, justify="left" if column in ("engine", "dtype") else "right", no_wrap=True)
    last = None
    for row in result.rows:
        if last not in (None, row.batch):
            table.add_section()
        table.add_row(
            "" if row.batch == last else str(row.batch),
            row.engine,
            row.dtype,
            *map(_ms, (row.ms_per_step, row.ms_per_step_p10, row.ms_per_step_p90)),
            f"{row.tokens_per_second:,.0f}",
            "" if row.ratio_to_transformers is None else f"{row.ratio_to_transformers:.2f}x",
            _ms(row.first_token_ms),
            f"{row.peak_rss_mb:,.0f}",
            f"{row.load_seconds:.2f}",
            "" if row.same_tokens is None else f"{row.same_tokens:.1%}",
        )
        last = row.batch
    return table


def _facts(result: Benchmark) -> list[str]:
    rows, floors = result.rows, result.floors
    reads = [f"{dtype} {_ms(floors.memory_ms(dtype))} ms" for dtype in dict.fromkeys(row.dtype for row in rows)]
    products = [
        f"batch {batch} {_ms(floors.arithmetic_ms(batch))} ms" for batch in dict.fromkeys(row.batch for row in rows)
    ]
    lines = [
        "ratio              how many times as fast as transformers in float32; same: share of its tokens, in order",
        f"engines            {', '.join(result.versions)}",
        f"floor, memory      weights read once per step at {floors.bandwidth / 1e9:.1f} GB/s: {', '.join(reads)}",
        f"floor, arithmetic  float32 at {floors.flops / 1e9:,.0f} Gflop/s: {', '.join(products)}",
    ]
    if any((row.engine, row.dtype) == ("llamacpp", "int8") for row in rows):
        lines.append("llamacpp           int8 is q8_0: one scale per 32 weights")
    return lines


def _difference_lines(differing: list[Difference]) -> list[str]:
    """One line per engine and batch size, about the row with the largest margin."""
    groups = defaultdict(list)
    for each in differing:
        groups[each.variant, each.batch].append(each)
    lines = []
    for (variant, batch), group in groups.items():
        worst = max(group, key=lambda each: each.margin)
        ties = sum(each.tie for each in group)
        lines.append(
            f"{variant}, batch {batch}: other tokens in {len(group)} rows, {ties} of them near ties; "
            f"row {worst.row} at new token {worst.where}, where the two largest logits are {worst.margin:.2g} apart"
        )
    return lines


def _ms(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
