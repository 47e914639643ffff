"""What task=export shows on the console: the verdict, one row per reader, and who confirmed the conversion."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import TextColumn
from rich.table import Column, Table

from gpt2x.parity.conversion.certificate import Certificate
from gpt2x.parity.conversion.rows import ReaderRow, TensorRow, Verdict
from gpt2x.paths import shown
from gpt2x.reports import console

_MOST_TENSORS = 3


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A line on the terminal that says what is done; yields the function that takes the description."""
    with console.progress(TextColumn("{task.description}")) as bar:
        task = bar.add_task("", total=None)
        yield lambda what: bar.update(task, description=what)


def show(certificate: Certificate, folder: Path) -> None:
    """Prints the certificate of a conversion that was written to a folder, or refused."""
    print = console.out.print
    what = f"{certificate.model} · {certificate.weights} · {certificate.format} · {certificate.dtype}"
    if certificate.passed:
        rounded = certificate.readers[0].tensors_rounded
        but = f", with {rounded} tensors rounded" if rounded else ""
        print(f"PASS  {shown(folder)} is the same model{but}: {what}", soft_wrap=True)
    else:
        print(f"FAIL  {shown(folder)} was not written, as it would be another model: {what}", soft_wrap=True)
    print(_table(certificate.readers))
    for row in certificate.readers:
        if row.verdict is Verdict.FAIL:
            print(console.as_text(f"{row.reader}: {row.note}{_first(certificate.tensors, row)}"), soft_wrap=True)
    for line in _confirmation(certificate):
        print(line, soft_wrap=True)


def _table(rows: list[ReaderRow]) -> Table:
    is_rounded = any(row.tensors_rounded for row in rows)  # without the column, 80 hold the names of the readers
    numbers = ("equal", *(["rounded"] if is_rounded else []), "error", "logits", "KL", "top 1", "texts")
    columns = [Column(name, justify="right") for name in numbers]
    table = console.plain_table(Column("verdict"), Column("reader", ratio=1), *columns)
    for row in rows:
        table.add_row(
            row.verdict,
            console.as_text(f"{row.reader} {row.version}"),
            _share(row.tensors_equal, row.tensors),
            *([("" if row.tensors_rounded is None else f"{row.tensors_rounded:,}")] if is_rounded else []),
            *map(_short, (row.max_abs_error, row.max_abs_logit_difference, row.mean_kl)),
            "" if row.top1_agreement is None else f"{row.top1_agreement:.0%}",
            _share(row.texts_same, row.texts),
        )
    return table


def _first(tensors: list[TensorRow], row: ReaderRow) -> str:
    """The first tensors that a reader did not find as they are."""
    wrong = [each for each in tensors if each.reader == row.reader and each.found not in ("equal", "rounded")]
    names = ", ".join(f"{each.tensor} {each.found}" for each in wrong[:_MOST_TENSORS])
    return f" ({names}{', ...' if len(wrong) > _MOST_TENSORS else ''})" if wrong else ""


def _confirmation(certificate: Certificate) -> Iterator[str]:
    if certificate.confirmed_by:
        yield f"confirmed by     {', '.join(certificate.confirmed_by)}"
    elif certificate.passed:
        yield "confirmed by     no independent reader: it was read back by gpt2x alone"
    if certificate.not_installed:
        packages = " ".join(certificate.not_installed)
        yield f"not installed    {packages}, which could confirm it: python -m pip install {packages}"
    if certificate.note is not None:
        yield f"note             {certificate.note}"


def _share(part: int | None, whole: int | None) -> str:
    return "" if part is None or whole is None else f"{part}/{whole}"


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"
