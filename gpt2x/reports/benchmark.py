"""What benchmark says on the console: a table, versions and floors, and who generates other tokens."""

from collections import defaultdict

from rich.table import Table
from rich.text import Text

from gpt2x.benchmark.agreement import Difference
from gpt2x.benchmark.machine import Floors
from gpt2x.benchmark.rows import BenchmarkRow
from gpt2x.reports import console


def show(
    title: str, rows: list[BenchmarkRow], floors: Floors, versions: list[str], differing: list[Difference]
) -> None:
    """Prints it; `versions` are of the engines."""
    console.out.print(_table(title, rows))
    for line in _facts(rows, floors, versions):
        console.out.print(line, soft_wrap=True)
    for line in _difference_lines(differing):
        console.out.print(Text(line, "yellow"), soft_wrap=True)


def _table(title: str, rows: list[BenchmarkRow]) -> Table:
    table = Table(title=Text(title), title_justify="left", title_style="bold")
    times = ("ms/step", "p10", "p90", "tokens/s", "ratio", "first ms")
    for column in ("batch", "engine", "dtype", *times, "peak MB", "load s", "same"):
        table.add_column(column, justify="left" if column in ("engine", "dtype") else "right", no_wrap=True)
    last = None
    for row in rows:
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


def _facts(rows: list[BenchmarkRow], floors: Floors, versions: list[str]) -> list[str]:
    reads = [f"{dtype} {_ms(floors.memory_ms(dtype))} ms" for dtype in dict.fromkeys(row.dtype for row in rows)]
    products = [
        f"batch {batch} {_ms(floors.arithmetic_ms(batch))} ms" for batch in dict.fromkeys(row.batch for row in rows)
    ]
    return [
        "ratio              how many times as fast as transformers in float32; same: share of its tokens, in order",
        f"engines            {', '.join(versions)}",
        f"floor, memory      weights read once a step at {floors.bandwidth / 1e9:.1f} GB/s: {', '.join(reads)}",
        f"floor, arithmetic  float32 at {floors.flops / 1e9:,.0f} Gflop/s: {', '.join(products)}",
    ]


def _difference_lines(differing: list[Difference]) -> list[str]:
    groups = defaultdict(list)
    for each in differing:
        groups[each.name, each.batch].append(each)
    lines = []
    for ((engine, dtype), batch), group in groups.items():
        worst = max(group, key=lambda each: each.margin)
        ties = sum(each.tie for each in group)
        lines.append(
            f"{engine} {dtype}, batch {batch}: other tokens in {len(group)} rows, {ties} of them near ties; "
            f"row {worst.row} at new token {worst.where}, where the two largest logits are {worst.margin:.2g} apart"
        )
    return lines


def _ms(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
