"""What benchmark says on the console: a table, versions and floors, and who generates other tokens."""

from collections import defaultdict
from importlib.metadata import version

from rich.table import Table
from rich.text import Text

from gpt2x import console
from gpt2x.benchmark.agreement import Difference
from gpt2x.benchmark.machine import Floors
from gpt2x.results import BenchmarkRow


def show(title: str, rows: list[BenchmarkRow], floors: Floors, differing: list[Difference]) -> None:
    console.out.print(_table(title, rows))
    for line in _facts(rows, floors):
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
            *(f"{ms:.2f}" for ms in (row.ms_per_step, row.ms_per_step_p10, row.ms_per_step_p90)),
            f"{row.tokens_per_second:,.0f}",
            "" if row.ratio_to_transformers is None else f"{row.ratio_to_transformers:.2f}x",
            f"{row.first_token_ms:.1f}",
            f"{row.peak_rss_mb:,.0f}",
            f"{row.load_seconds:.2f}",
            "" if row.same_tokens is None else f"{row.same_tokens:.1%}",
        )
        last = row.batch
    return table


def _facts(rows: list[BenchmarkRow], floors: Floors) -> list[str]:
    reads = [f"{dtype} {floors.memory_ms(dtype):.2f} ms" for dtype in dict.fromkeys(row.dtype for row in rows)]
    products = [
        f"batch {batch} {floors.arithmetic_ms(batch):.2f} ms" for batch in dict.fromkeys(row.batch for row in rows)
    ]
    peers = [engine for engine in dict.fromkeys(row.engine for row in rows) if engine != "gpt2x"]
    return [
        "ratio              how many times as fast as transformers in float32; same: share of its tokens, in order",
        *(f"{peer:18} {version(peer)}" for peer in peers),
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
