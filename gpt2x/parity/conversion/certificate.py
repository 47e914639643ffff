"""The certificate of a conversion: which readers found the same model in what was written."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import gpt2x
from gpt2x.checkpoints.exporting import Exporter
from gpt2x.checkpoints.load import Checkpoint, load_checkpoint
from gpt2x.checkpoints.names import to_file
from gpt2x.config.model import ModelConfig
from gpt2x.config.weights import WeightsConfig
from gpt2x.errors import UserError
from gpt2x.memory import is_out_of_memory
from gpt2x.parity.conversion.comparison import Answer, Comparison
from gpt2x.parity.conversion.probe import Probe, Reading, logits_of, make_probe
from gpt2x.parity.conversion.readers import READERS
from gpt2x.parity.conversion.rows import ReaderRow, TensorRow, Verdict
from gpt2x.parity.measures import RELATIVE_TOLERANCE
from gpt2x.paths import shown
from gpt2x.tokenizer import Tokenizer

_OWN = "gpt2x"


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

    gpt2x's own reader comes first. The logits of the others are judged against those that gpt2x computes with the
    tensors of the file, as rounding to the dtype of the file is no error; their difference from the logits of the
    source is stated, too.
    """
    probe = make_probe(source)
    comparison = Comparison(probe, exporter, dtype, logits_of(source.model, probe))
    readers, not_installed = [], []
    read_back = _attempt(folder, partial(_read_back, folder / exporter.weights, probe), UserError)
    own = Answer(_OWN, gpt2x.__version__, False, read_back)
    readers.append(comparison.row(own, comparison.logits, RELATIVE_TOLERANCE[probe.dtype]))
    by_file = read_back.logits if isinstance(read_back, Reading) else None
    for reader in READERS:
        if exporter.name not in reader.formats:
            continue
        try:
            # Other people's programs raise any kind of error.
            reading = _attempt(folder, partial(reader.read, folder, exporter.weights, probe), Exception)
        except ImportError:
            not_installed.append(reader.package)
            continue
        answer = Answer(reader.name, version(reader.package), True, reading)
        readers.append(comparison.row(answer, by_file, reader.tolerance(dtype, probe.dtype)))
    return Certificate(
        format=exporter.name,
        dtype=dtype,
        model=source.name,
        weights=source.weights,
        readers=readers,
        tensors=comparison.tensors,
        not_installed=not_installed,
        note=exporter.note,
    )


def _attempt(folder: Path, read: Callable[[], Reading], errors: type[Exception]) -> Reading | str:
    """What a reader found, or the error of these types with which it failed, without the folder's temporary name.

    Raises ImportError if its package is not installed, and errors for lack of memory.
    """
    try:
        return read()
    except ImportError:
        raise
    except errors as error:
        if is_out_of_memory(error):
            raise
        message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        for name in (shown(folder), str(folder)):
            message = message.replace(f"{name}/", "")
        return " ".join(message.split())[:300]


def _read_back(file: Path, probe: Probe) -> Reading:
    """What gpt2x itself reads. Raises UserError if it cannot read the file."""
    source = probe.source.model
    model, weights, dtype = ModelConfig("auto"), WeightsConfig("local", str(file)), source.lm_head.weight.dtype
    found = load_checkpoint(model, weights, dtype, torch.device("cpu"), shared=False)
    theirs, ours = asdict(found.model.config), asdict(source.config)
    differing = [name for name in ours if name != "dropout" and theirs[name] != ours[name]]
    if differing:
        what = ", ".join(f"{name} {theirs[name]} instead of {ours[name]}" for name in differing)
        raise UserError(f"another architecture: {what}")
    return Reading(
        tensors=to_file(found.model),
        logits=logits_of(found.model, probe),
        same_ids=[found.tokenizer.encode(text) == ids for text, ids in probe.texts.items()],
        same_merges=_definition(found.tokenizer) == _definition(probe.source.tokenizer),
    )


def _definition(tokenizer: Tokenizer) -> tuple[Any, Any]:
    """The vocabulary and the merges: few texts depend on the order of two merges."""
    model = json.loads(tokenizer.backend.to_str())["model"]
    return model["vocab"], model.get("merges")
