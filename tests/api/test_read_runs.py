"""read_runs: the tables of many runs as one, with their settings."""

import json
from pathlib import Path

import pytest

import gpt2x as package
from tests.conftest import Cli, assert_in, read_csv, run_dir

GENERATE = ("task=generate", "prompt=be", "decode.max_new_tokens=3")


@pytest.fixture
def runs(gpt2x: Cli, launch: Path, tiny_dir: Path) -> Path:
    """A run on its own, and a sweep of two jobs."""
    weights = f"weights.path={tiny_dir}"
    assert gpt2x(*GENERATE, weights, "decode.stop=[x,y]").code == 0
    assert gpt2x("-m", *GENERATE, weights, "decode.temperature=0.5,1", "decode.top_k=3", "seed=7").code == 0
    return launch / "runs"


def test_runs_and_jobs_are_read_once(runs: Path) -> None:
    table = package.read_runs()
    rows = [read_csv(Path(folder) / "generations.csv")[0] for folder in table["run"]]
    assert len(set(table["run"])) == len(table) == 3
    assert table["completion"].tolist() == [row["completion"] for row in rows]
    assert table.columns[0] == "run"
    assert list(rows[0]) == list(table.columns[1 : len(rows[0]) + 1])
    assert (runs / "sweeps").is_dir()


def test_settings_are_columns(runs: Path, tiny_dir: Path) -> None:
    table = package.read_runs(runs)
    assert sorted(table["decode.temperature"]) == [0.5, 1.0, 1.0]
    assert set(table["decode.max_new_tokens"]) == {3}
    assert set(table["weights.path"]) == {str(tiny_dir)}  # which job.json does not hold
    assert table["decode.stop"].dropna().tolist() == ['["x", "y"]']
    assert table["decode.top_k"].isna().tolist() == [True, False, False]
    assert not any(column.startswith(("task.stages", "subject.")) for column in table)  # generate does not use them
    assert table.columns.is_unique
    assert sorted(table["seed"]) == [0, 7, 7]
    dtypes = table.dtypes.astype(str)
    names = ["decode.temperature", "decode.top_k", "decode.greedy", "device.name", "decode.stop"]
    assert dtypes[names].tolist() == ["float64", "Int64", "boolean", "string", "string"]


def test_the_folder_of_one_run_and_another_table(runs: Path) -> None:
    folder = run_dir(runs.parent, "generate")
    assert package.read_runs(folder)["run"].tolist() == [str(folder)]
    assert package.read_runs("runs", table="timing")["stage"].value_counts()["total"] == 3


def test_only_what_is_done_is_read_unless_asked(runs: Path) -> None:
    file = run_dir(runs.parent, "generate") / "job.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"status": "running", "pid": 2**30}))
    csv = file.with_name("generations.csv")
    csv.write_bytes(csv.read_bytes() + b'"1",0,"cut sho')
    assert len(package.read_runs()) == 2
    table = package.read_runs(unfinished=True)
    assert sorted(table["run.status"]) == ["done", "done", "killed"]


def test_a_table_that_no_run_has(runs: Path) -> None:
    with pytest.raises(package.UserError) as raised:
        package.read_runs(table="tokens")
    assert_in(str(raised.value), "3 runs", "tokens.csv", "task=generate (done)")


def test_a_damaged_table_is_named(runs: Path) -> None:
    csv = run_dir(runs.parent, "generate") / "generations.csv"
    csv.write_bytes(csv.read_bytes() + b'"1",0\r\n')
    with pytest.raises(package.UserError, match=r"generations\.csv: cannot be read"):
        package.read_runs()


def test_a_column_that_some_runs_lack_is_missing_there(runs: Path) -> None:
    csv = run_dir(runs.parent, "generate") / "generations.csv"
    header, row = csv.read_text().splitlines()
    csv.write_text(
        f'{header.removesuffix(",{0}seed{0}".format(chr(34)))},"topic"\r\n{row.rpartition(",")[0]},"sea"\r\n',
        newline="",
    )
    table = package.read_runs()
    assert table["seed"].isna().sum() == 1
    assert table["topic"].dropna().tolist() == ["sea"]
    assert str(table["seed"].dtype) == "Int64"
