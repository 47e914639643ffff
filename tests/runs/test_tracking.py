"""tracking=mlflow: each job that has ended is a run of MLflow, which changes nothing else."""

import importlib.util
import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gpt2x.config.tracking import TrackingConfig
from gpt2x.runs import tracking
from tests.conftest import Cli, Refused, assert_in, read_csv, run_dir

GENERATE = ("task=generate", "prompt=Juliet", "decode.max_new_tokens=2")


def logged(store: Path, experiment: str = "gpt2x") -> dict[str, Any]:
    """Name of each run in a folder that MLflow has written -> the run, as MLflow reads it."""
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    from mlflow import MlflowClient

    client = MlflowClient(store.as_uri())
    runs = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return {run.info.run_name: run for run in runs}


def test_a_run_of_mlflow_holds_what_the_run_folder_holds(
    gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    result = gpt2x(*GENERATE, "tracking=mlflow", "notes=mine", "decode.top_p=0.9")
    assert (result.code, result.warnings) == (0, "")
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    folder = run_dir(launch, "generate")
    job = json.loads((folder / "job.json").read_text())
    (run,) = logged(launch / "runs" / "mlflow").values()
    assert run.info.run_name == f"generate {folder.name}"
    assert run.info.status == "FINISHED"
    assert abs(run.info.end_time - run.info.start_time - 1000 * job["seconds"]) < 2
    params = run.data.params
    assert (params["decode.top_p"], params["prompt"], params["task.score"]) == ("0.9", "Juliet", "logprob")
    assert "decode.top_k" not in params  # it is not set
    assert [key for key in params if key.startswith(("notes", "tracking"))] == []
    timing = {f"seconds.{row['stage']}": float(row["seconds"]) for row in read_csv(folder / "timing.csv")}
    (row,) = read_csv(folder / "generations.csv")
    logprob = pytest.approx(float(row["logprob"]) / int(row["n_new_tokens"]))
    assert run.data.metrics == timing | {"logprob": logprob, "objective": logprob}
    manifest = json.loads((folder / "manifest.json").read_text())
    tags = {"status": "done", "task": "generate", "attempt": "1", "folder": str(folder), "mlflow.note.content": "mine"}
    tags |= {"gpt2x": manifest["versions"]["gpt2x"], "mlflow.source.git.commit": manifest["git_commit"]}
    assert tags.items() <= run.data.tags.items()
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    assert {file.name for file in artifacts.iterdir()} == {
        "generations.csv",
        "timing.csv",
        "weights.csv",
        "manifest.json",
    }
    assert all(file.read_bytes() == (folder / file.name).read_bytes() for file in artifacts.iterdir())


def test_tracking_is_off_and_no_part_of_a_run_s_identity(gpt2x: Cli, launch: Path) -> None:
    sweep = ("-m", *GENERATE, "decode.top_p=2,0.5")
    assert gpt2x(*sweep, "hydra.sweep.dir=plain").code == 3
    assert not (launch / "runs").exists()
    options = ("tracking=mlflow", "tracking.uri=store", "tracking.experiment=mine", "hydra.sweep.dir=out")
    assert gpt2x(*sweep, *options).code == 3
    jobs = {f"generate {job['job']}": job for job in read_csv(launch / "out" / "jobs.csv")}
    assert [name.removeprefix("generate ") for name in jobs] == [
        job["job"] for job in read_csv(launch / "plain" / "jobs.csv")
    ]
    runs = logged(launch / "store", "mine")
    assert runs.keys() == jobs.keys()
    for name, run in runs.items():
        assert run.info.status == ("FINISHED" if jobs[name]["status"] == "done" else "FAILED")
        assert run.data.tags.get("error", "") == jobs[name]["error"]
        assert (run.data.tags["sweep"], run.data.tags["attempt"]) == ("out", "1")
    assert len({run.data.params["decode.top_p"] for run in runs.values()}) == 2
    assert gpt2x("-m", *GENERATE, "decode.top_p=0.7", "hydra.sweep.dir=out").code == 0  # and this one is not logged
    rows = read_csv(launch / "out" / "generations.csv")
    assert [row["decode.top_p"] for row in rows] == ["0.5", "0.7"]
    assert list(rows[0])[:3] == ["job", "decode.top_p", "prompt_id"]  # tracking is no swept setting


def test_training_is_logged_over_its_steps(gpt2x: Cli, launch: Path) -> None:
    (launch / "text.txt").write_text("To be, or not to be, that is the question. " * 60)
    sizes = [f"model.{key}" for key in ("n_layer=1", "n_head=1", "n_embd=8", "n_positions=8", "vocab_size=260")]
    steps = ("task.steps=4", "task.eval_every=2", "task.batch_size=2")
    result = gpt2x("task=train", "model=nano", *sizes, "task.data=text.txt", *steps, "tracking=mlflow")
    assert (result.code, result.warnings) == (0, "")
    (run,) = logged(launch / "runs" / "mlflow").values()
    from mlflow import MlflowClient

    client = MlflowClient((launch / "runs" / "mlflow").as_uri())
    rows = read_csv(run_dir(launch, "train") / "train.csv")
    assert len(rows) > 1
    for name in ("val_loss", "val_bits_per_byte"):  # the best value is a metric of its own, and no point of the curve
        history = client.get_metric_history(run.info.run_id, name)
        found = [(metric.step, metric.value) for metric in history]
        assert sorted(found) == [(int(row["step"]), float(row[name])) for row in rows]
        assert run.data.metrics[f"best.{name}"] == pytest.approx(min(float(row[name]) for row in rows))
    assert run.data.params["task.data"] == "text.txt"


def test_the_prompt_that_a_file_replaces_is_no_param(gpt2x: Cli, launch: Path) -> None:
    (launch / "text.txt").write_text("Juliet")
    assert gpt2x(GENERATE[0], *GENERATE[2:], "prompt_file=text.txt", "tracking=mlflow").code == 0
    (run,) = logged(launch / "runs" / "mlflow").values()
    assert run.data.params["prompt_file"] == "text.txt"
    assert "prompt" not in run.data.params


def test_a_tracker_that_fails_loses_nothing(gpt2x: Cli, launch: Path) -> None:
    result = gpt2x(*GENERATE, "tracking=mlflow", "tracking.uri=/dev/null/store")
    assert result.code == 0
    (line,) = (line for line in result.err.splitlines() if line.startswith("gpt2x: "))
    assert_in(line, "gpt2x: warning: tracking.uri=/dev/null/store", "not logged")
    assert json.loads((run_dir(launch, "generate") / "job.json").read_text())["status"] == "done"


def test_jobs_that_end_at_the_same_time_make_one_experiment(tmp_path: Path) -> None:
    settings = TrackingConfig("mlflow", "deep/store", "mine")
    with ThreadPoolExecutor(8) as pool:
        found = {experiment for _, experiment in pool.map(lambda _: tracking._open(settings, tmp_path), range(8))}
    assert len(found) == 1
    assert [folder.name for folder in (tmp_path / "deep").iterdir()] == ["store"]  # and no lock


def test_mlflow_is_not_installed(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str, package: str | None = None, find: Any = importlib.util.find_spec) -> Any:
        return None if name == "mlflow" else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    assert_in(refused(*GENERATE, "tracking=mlflow"), "tracking=mlflow", "pip install 'gpt2x[mlflow]'")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("tracking.uri=store",), ("tracking.uri=store", "tracking=mlflow")),
        (("tracking=mlflow", "tracking.experiment="), ("tracking.experiment",)),
        (("tracking=wandb",), ("tracking=wandb", "mlflow, none")),
        (("tracking=mlflow", "decode.top_p=2"), ("decode.top_p=2",)),  # a run that leaves no folder is not logged
    ],
)
def test_what_is_refused(refused: Refused, options: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert_in(refused(*GENERATE, *options), *words)
