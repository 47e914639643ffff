"""What was done to the weights of a checkpoint: one line when it is loaded, or a table for task=inspect."""

import re
from math import hypot
from pathlib import Path

from rich.table import Column

from gpt2x.checkpoints.account import Account
from gpt2x.checkpoints.resolve import Weights
from gpt2x.checkpoints.rows import WeightRow
from gpt2x.checkpoints.sizes import size_like
from gpt2x.paths import shown
from gpt2x.reports import console

_told: set[str] = set()


def tell(account: Account) -> None:
    """Prints to stderr, once per process, what was done (on a terminal only) and what users should know."""
    lines = [account.summary] if account.rows and console.err.is_terminal else []
    for line in [*lines, *(f"note: {note}" for note in account.notes)]:
        if line not in _told:
            _told.add(line)
            console.err.print(f"gpt2x: {line}", soft_wrap=True)


def show(path: Path, weights: Weights) -> None:
    """Prints the architecture, and a table with one row for the same tensor of all layers."""
    config, account = weights.config, weights.account
    n_parameters = sum(tensor.numel() for tensor in weights.state.values())
    facts = {
        "format": account.format,
        "model": size_like(config) or "custom",
        "architecture": f"n_layer {config.n_layer}, n_head {config.n_head}, n_embd {config.n_embd}, "
        f"n_positions {config.n_positions}, vocab_size {config.vocab_size}",
        "parameters": f"{n_parameters:,}",
    }
    console.out.print(shown(path), soft_wrap=True)
    for name, value in facts.items():
        console.out.print(f"{name:<14}{value}", soft_wrap=True)
    columns = (Column("tensor"), *(Column(name, justify="right") for name in ("n", "shape", "dtype", "norm")))
    table = console.plain_table(*columns, Column("done", ratio=1))
    for rows in _groups(account.rows):
        first, norms = rows[0], [row.norm for row in rows if row.norm is not None]
        norm = f"{hypot(*norms):.4g}" if norms else ""
        cells = (_pattern(first), str(len(rows)), first.shape or "", first.dtype or "", norm, first.done)
        table.add_row(*map(console.as_line, cells))
    console.out.print(table)
    console.out.print(account.summary, soft_wrap=True)
    for note in account.notes:
        console.out.print(f"note: {note}", soft_wrap=True)


def _groups(rows: tuple[WeightRow, ...]) -> list[list[WeightRow]]:
    """The rows, together where they differ in the number of the layer, the norm and the checksum only."""
    groups: dict[tuple[str | None, ...], list[WeightRow]] = {}
    for row in rows:
        groups.setdefault((_pattern(row), row.shape, row.dtype, row.done), []).append(row)
    return list(groups.values())


def _pattern(row: WeightRow) -> str:
    """The name of a tensor without prefixes, and with a star for the number of its layer."""
    name = row.name if row.name is not None else row.source or ""
    return re.sub(r"(?:.*\.)?\bh\.\d+\.", "h.*.", name).removeprefix("transformer.")
