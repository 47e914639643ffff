"""task=download: a model and its tokenizer, from the Hugging Face hub into data/. Writes download.csv."""

from pathlib import Path

from gpt2x.checkpoints.download import download, missing_files, staging_of
from gpt2x.checkpoints.hub import look_up, named_repository
from gpt2x.checkpoints.rows import DownloadRow
from gpt2x.config.model import ModelConfig
from gpt2x.config.options import names, option
from gpt2x.config.schema import Config
from gpt2x.config.tasks.download import DownloadTask
from gpt2x.errors import UserError
from gpt2x.paths import shown
from gpt2x.reports.download import progress_bar, show, show_interrupted
from gpt2x.runs.lock import LOCK, locked
from gpt2x.runs.tables import write_rows
from gpt2x.tasks.outcome import Outcome


def run(config: Config, task: DownloadTask, run_dir: Path) -> Outcome:
    """Downloads what is missing in data/NAME. Raises UserError if that is not possible; the next run continues.

    Two runs for the same folder take turns.
    """
    outcome = Outcome()
    repository = named_repository(config.model.name, config.model.hub)
    snapshot = look_up(repository, config.weights.revision)
    folder = Path("data") / _folder_name(config.model, repository)
    _refuse_others(folder)
    staging = staging_of(folder)
    try:
        staging.parent.mkdir(parents=True, exist_ok=True)
        with locked(staging.with_suffix(LOCK), "model", wait=True):
            missing = missing_files(snapshot, folder)
            with outcome.timed("download"), progress_bar(sum(file.size for file in missing)) as progress:
                download(snapshot, missing, folder, progress)
    except OSError as error:
        raise UserError(f"cannot write {shown(folder)}: {error.strerror}") from None
    except KeyboardInterrupt:
        show_interrupted()
        raise
    rows = [DownloadRow(repository, snapshot.commit, file.name, file.size, file.checksum) for file in snapshot.files]
    write_rows(run_dir / "download.csv", DownloadRow, rows)
    show(snapshot, len(missing), folder, _setting_of(config.model, folder))
    return outcome


def _folder_name(model: ModelConfig, repository: str) -> str:
    """The name under which weights=local looks for the model; that of the repository if it is not the model's own."""
    name = "gpt2" if model.name == "auto" else model.name
    if model.name in names("model") and option("model", model.name)["hub"] != repository:
        return repository.rpartition("/")[2]
    return name


def _setting_of(model: ModelConfig, folder: Path) -> str:
    """The setting with which the downloaded model is used."""
    return f"model={folder.name}" if folder.name in names("model") else f"weights.path={folder}"


def _refuse_others(folder: Path) -> None:
    """Raises UserError for weights that weights=local would use before those in the folder."""
    for ending in ("safetensors", "pt"):
        file = folder.with_name(f"{folder.name}_weights.{ending}")
        if file.exists():
            raise UserError(f"{shown(file)}: would be used before {shown(folder)}; move it away")
