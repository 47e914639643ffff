"""task=export: writes a model in another format, with a certificate that what was written is the same model."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import torch

from gpt2x.checkpoints.exporting import check_range, exporter_for
from gpt2x.checkpoints.exporting.folder import check_target, place, staged
from gpt2x.checkpoints.load import load_checkpoint
from gpt2x.config.schema import Config
from gpt2x.config.tasks.export import ExportTask
from gpt2x.parity.conversion.certificate import Certificate, certify
from gpt2x.parity.conversion.rows import ReaderRow, TensorRow
from gpt2x.paths import expanded, write_text
from gpt2x.reports.export import progress, show
from gpt2x.runs.tables import write_rows
from gpt2x.tasks.outcome import Outcome


def run(config: Config, task: ExportTask, run_dir: Path) -> Outcome:
    """Writes the files under a temporary name, reads them back, and moves them into place if all readers agree.

    Raises UserError if the format cannot hold the model, or the folder must not be replaced.
    """
    assert task.format is not None  # the schema refuses it
    exporter = exporter_for(task.format, config.dtype)
    target = run_dir / "export"
    if task.path is not None:
        target = expanded(task.path, "task.path").absolute()
        check_target(target, task.overwrite)
    device = torch.device("cpu")
    outcome = Outcome(device=device)
    with progress() as step:
        step("loading weights")
        with outcome.timed("load"):
            source = outcome.loaded(load_checkpoint(config.model, config.weights, None, device), run_dir)
        exporter.check(source.model, source.tokenizer, config.dtype)
        check_range(source.model, exporter, config.dtype)
        with staged(target) as folder:
            step("writing")
            with outcome.timed("write"):
                exporter.write(folder, source.model, source.tokenizer, config.dtype)
            step("reading what was written")
            with outcome.timed("certify"):
                certificate = certify(source, exporter, config.dtype, folder)
                files = [_described(file) for file in sorted(folder.iterdir())]
            write_rows(run_dir / "certificate.csv", ReaderRow, certificate.readers)
            write_rows(run_dir / "tensors.csv", TensorRow, certificate.tensors)
            write_text(run_dir / "certificate.json", _as_json(certificate, files))
            if certificate.passed:
                place(folder, target)
    own = certificate.readers[0]
    outcome.passed = certificate.passed
    outcome.numbers = {
        name: getattr(own, name) for name in ("max_abs_error", "max_abs_logit_difference", "mean_kl", "top1_agreement")
    }
    show(certificate, target)
    return outcome


def _described(file: Path) -> dict[str, str | int]:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"name": file.name, "bytes": file.stat().st_size, "sha256": digest}


def _as_json(certificate: Certificate, files: list[dict[str, str | int]]) -> str:
    """certificate.json: what was converted, the verdict, who confirmed it, the readers' rows, and the files."""
    content = {
        "passed": certificate.passed,
        "confirmed_by": certificate.confirmed_by,
        "model": certificate.model,
        "weights": certificate.weights,
        "format": certificate.format,
        "dtype": certificate.dtype,
        "note": certificate.note,
        "not_installed": certificate.not_installed,
        "readers": [asdict(row) for row in certificate.readers],
        "files": files,
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
