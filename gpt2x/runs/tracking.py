"""Tracking with MLflow: each job becomes a run of MLflow once it has ended, with what its folder holds."""

import csv
import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2x import __version__
from gpt2x.config.tasks import is_descriptive
from gpt2x.config.tracking import TrackingConfig
from gpt2x.errors import UserError
from gpt2x.runs.job import Job, Status
from gpt2x.runs.lock import locked
from gpt2x.runs.manifest import environment

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

_ARTIFACTS = ("*.csv", "*.png", "manifest.json")
_STATUS = {Status.DONE: "FINISHED", Status.INTERRUPTED: "KILLED"}  # every other status is FAILED
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # else it reports to its makers over the network
    "MLFLOW_ALLOW_FILE_STORE": "true",  # else it refuses a folder, and asks for a database
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # else a server that does not answer holds up each job for minutes
}
_AT_ONCE = 1000  # metrics that MLflow takes in one call


def check_installed(tracking: TrackingConfig) -> None:
    """Raises UserError if the tracker that the settings name is not installed."""
    if tracking.tracker == "mlflow" and importlib.util.find_spec("mlflow") is None:
        raise UserError("tracking=mlflow: MLflow is not installed: pip install 'gpt2x[mlflow]'")


def track(tracking: TrackingConfig, launch_folder: Path, folder: Path, job: Job, curve: str | None = None) -> None:
    """Logs a job that has ended: settings, numbers, times, tables and pictures, and where it comes from.

    A folder that `tracking.uri` names is relative to launch_folder; `folder` is that of the job. `curve` is the name
    of a table with a column `step`, whose other columns become metrics over the steps; the number of the job that has
    the name of such a column is logged as `best.<name>`. Raises what MLflow raises if the run cannot be logged.
    """
    client, experiment = _open(tracking, launch_folder)
    from mlflow.entities import Metric, Param

    start, end = (round(1000 * seconds) for seconds in (job.started, job.started + (job.seconds or 0)))
    run = client.create_run(experiment, start, _tags(folder, job), f"{job.task} {folder.name}").info.run_id
    client.log_batch(run, params=[Param(key, str(value)) for key, value in _settings(job).items()])
    metrics = list(_over_steps(folder / curve, end)) if curve is not None and (folder / curve).is_file() else []
    columns = {metric.key for metric in metrics}
    for key, value in _numbers(folder, job).items():  # under the name of a column it would be a point of the curve
        metrics.append(Metric(f"best.{key}" if key in columns else key, value, end, 0))
    for first in range(0, len(metrics), _AT_ONCE):
        client.log_batch(run, metrics=metrics[first : first + _AT_ONCE])
    for file in sorted(file for pattern in _ARTIFACTS for file in folder.glob(pattern)):
        client.log_artifact(run, str(file))
    client.set_terminated(run, _STATUS.get(job.status, "FAILED"), end)


def _open(tracking: TrackingConfig, launch_folder: Path) -> tuple["MlflowClient", str]:
    """MLflow's client, and the id of the experiment, which is made if it does not exist."""
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    uri, name = str(tracking.uri), str(tracking.experiment)
    lock: AbstractContextManager[None] = nullcontext()
    if "://" not in uri:
        folder = launch_folder / Path(uri).expanduser()
        folder.parent.mkdir(parents=True, exist_ok=True)
        uri = folder.as_uri()
        # Jobs that start at the same time in several processes must not make the same experiment twice.
        lock = locked(folder.parent / f".{folder.name}.lock", "tracking.uri", wait=True)
    with lock:
        client = MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(name)
        return client, found.experiment_id if found is not None else client.create_experiment(name)


def _settings(job: Job) -> dict[str, Any]:
    """The settings of the job, without those that are unset or only describe it."""
    return {key: value for key, value in job.settings.items() if value is not None and not is_descriptive(key)}


def _tags(folder: Path, job: Job) -> dict[str, str]:
    """What describes the job; `mlflow.*` are names that MLflow's pages show."""
    made_with = environment()
    tags = {
        "task": job.task,
        "status": job.status,
        "folder": str(folder.absolute()),
        "sweep": folder.absolute().parent.name if job.number is not None else None,
        "attempt": str(job.attempt),
        "overrides": " ".join(job.overrides),
        "error": job.error,
        "host": job.host,
        "gpt2x": __version__,
        "git_dirty": made_with["git_dirty"],
        "mlflow.source.git.commit": made_with["git_commit"],
        "mlflow.note.content": job.notes,
    }
    return {key: str(value) for key, value in tags.items() if value is not None}


def _numbers(folder: Path, job: Job) -> dict[str, float]:
    """The numbers of a job, the one that a search optimizes as `objective`, and the seconds that each stage took."""
    numbers = dict(job.numbers)
    if job.objective is not None:
        numbers["objective"] = job.objective
    timing = folder / "timing.csv"
    if timing.is_file():
        numbers |= {f"seconds.{row['stage']}": float(row["seconds"]) for row in _records(timing)}
    return numbers


def _over_steps(table: Path, time: int) -> Iterator["Metric"]:
    """Each number of a table's rows as a metric at the row's step."""
    from mlflow.entities import Metric

    for row in _records(table):
        step = int(row.pop("step"))
        yield from (Metric(key, float(value), time, step) for key, value in row.items() if value)


def _records(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))
