"""The certificate of a conversion: which readers found the same model in what was written."""

from dataclasses import dataclass
from pathlib import Path

from gpt2x.checkpoints.exporting import Exporter
from gpt2x.checkpoints.load import Checkpoint
from gpt2x.checkpoints.names import to_file
from gpt2x.errors import UserError
from gpt2x.memory import is_out_of_memory
from gpt2x.parity.conversion.comparison import Comparison
from gpt2x.parity.conversion.probe import Probe, Reader, Reading, logits_of, make_probe
from gpt2x.parity.conversion.readers import READERS
from gpt2x.parity.conversion.rows import ReaderRow, TensorRow, Verdict
from gpt2x.paths import shown


@dataclass(frozen=True)
class Certificate:
    """The result of a conversion."""

    format: str
    dtype: str
    model: str
    weights: str
    readers: list[ReaderRow]
    tensors: list[TensorRow]
    not_installed: list[str]
    """Packages of readers that could have confirmed it."""
    note: str | None
    """What users of the format must know."""

    @property
    def passed(self) -> bool:
        return all(row.verdict is Verdict.PASS for row in self.readers)

    @property
    def confirmed_by(self) -> list[str]:
        """The independent readers that found the same model, with their versions."""
        passed = [row for row in self.readers if row.independent and row.verdict is Verdict.PASS]
        return [f"{row.reader} {row.version}" for row in passed]


def certify(source: Checkpoint, exporter: Exporter, dtype: str, folder: Path) -> Certificate:
    """Reads what the exporter has written of `source` into a folder, by every reader of the format.

    Raises UserError if none of them is installed.
    """
    probe = make_probe(source)
    comparison = Comparison(probe, exporter, dtype, logits_of(to_file(source.model), probe))
    rows, not_installed = [], []
    for reader in READERS:
        if exporter.name not in reader.formats:
            continue
        try:
            rows.append(comparison.row(reader, _attempt(reader, folder, exporter.weights, probe)))
        except ImportError:
            not_installed.append(reader.package)
    if not rows:
        raise UserError(
            f"task.format={exporter.name}: no program that could read it back is installed: python -m pip install "
            f"{' '.join(not_installed)}"
        )
    return Certificate(
        format=exporter.name,
        dtype=dtype,
        model=source.name,
        weights=source.weights,
        readers=rows,
        tensors=comparison.tensors,
        not_installed=not_installed,
        note=exporter.note,
    )


def _attempt(reader: Reader, folder: Path, weights: str, probe: Probe) -> Reading | str:
    """What a reader found, or the error with which it failed, without the folder's temporary name.

    Raises ImportError if its package is not installed, and errors for lack of memory.
    """
    try:
        return reader.read(folder, weights, probe)
    except ImportError:
        raise
    except Exception as error:
        # Other people's programs raise any kind of error; in gpt2x it is a bug, and keeps its traceback.
        if is_out_of_memory(error) or not (reader.independent or isinstance(error, UserError)):
            raise
        message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        for name in (shown(folder), str(folder)):
            message = message.replace(f"{name}/", "")
        return " ".join(message.split())[:300]
