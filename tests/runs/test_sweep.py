"""-m: one job for each combination, the model loaded once, and one table for all."""

import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from gpt2x.checkpoints import load
from tests.conftest import Cli, read_csv
from tests.tasks.test_generate import COLUMNS

PROMPTS = ["To be, or not to be", "It's"]
SWEEP = ["-m", "task=generate", "hydra.sweep.dir=out", "decode.max_new_tokens=4"]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The paths whose tensors are read from now on."""
    paths: list[Path] = []

    def counted(path: Path, read: Any = load.read_contents) -> Any:
        paths.append(path)
        return read(path)

    monkeypatch.setattr(load, "read_contents", counted)
    return paths


def test_one_table_for_all_jobs_and_one_load(
    gpt2x: Cli, launch: Path, reads: list[Path], tiny_dir: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "tiny"  # a path that no earlier test has loaded
    shutil.copytree(tiny_dir, weights)
    prompts = ",".join(f'"{prompt}"' for prompt in PROMPTS)
    result = gpt2x(*SWEEP, f"weights.path={weights}", f"prompt={prompts}", "decode.top_p=0.5,0.9")
    assert (result.code, result.err) == (0, "")
    assert reads == [weights]

    out = launch / "out"
    rows = read_csv(out / "generations.csv")
    assert list(rows[0]) == ["job", "decode.top_p", *COLUMNS]
    assert [(row["prompt"], row["decode.top_p"], row["top_p"]) for row in rows] == [
        (prompt, top_p, top_p) for prompt in PROMPTS for top_p in ("0.5", "0.9")
    ]
    jobs = read_csv(out / "jobs.csv")
    columns = ["job", "overrides", "status", "attempts", "error", "seconds", "notes", "stale", "objective"]
    assert list(jobs[0]) == columns
    assert [job["job"] for job in jobs] == [row["job"] for row in rows]
    assert {(job["status"], job["error"]) for job in jobs} == {("done", "")}
    assert all("decode.max_new_tokens=4" in job["overrides"] for job in jobs)
    assert all(float(job["seconds"]) > 0 for job in jobs)

    folders = {path.name for path in out.iterdir() if path.is_dir()}
    assert folders == {job["job"] for job in jobs}
    assert all(re.fullmatch("[0-9a-f]{12}", folder) for folder in folders)
    for row in rows:
        (alone,) = read_csv(out / row["job"] / "generations.csv")
        assert alone == {column: row[column] for column in COLUMNS}


def test_pandas_reads_the_tables_back(gpt2x: Cli, launch: Path) -> None:
    prompts = ['say "hi", now\nand then\r\n', "007"]
    quoted = ",".join('"' + prompt.replace('"', '\\"') + '"' for prompt in prompts)
    assert gpt2x(*SWEEP, f"prompt={quoted}", "seed=1,2").code == 0
    table = pd.read_csv(launch / "out" / "generations.csv", dtype={"prompt": str, "job": str})
    assert table["prompt"].tolist() == [prompts[0], prompts[0], prompts[1], prompts[1]]
    assert table["seed"].tolist() == [1, 2, 1, 2]
    assert table["n_new_tokens"].tolist() == [4, 4, 4, 4]
    assert table["logprob"].dtype == float
    assert not table["greedy"].any()
    jobs = pd.read_csv(launch / "out" / "jobs.csv", dtype={"job": str})
    assert jobs["job"].tolist() == table["job"].tolist()
    assert jobs["error"].isna().all()


def test_a_job_of_a_sweep_gives_what_it_gives_alone(gpt2x: Cli, launch: Path) -> None:
    assert gpt2x(*SWEEP, "prompt=Now", "decode.top_p=0.5,0.9", "seed=1,2").code == 0
    args = ["task=generate", "decode.max_new_tokens=4", "prompt=Now", "decode.top_p=0.9", "seed=2"]
    assert gpt2x(*args, "hydra.run.dir=alone").code == 0
    *_, last = read_csv(launch / "out" / "generations.csv")
    assert read_csv(launch / "alone" / "generations.csv") == [{column: last[column] for column in COLUMNS}]


def test_overrides_on_both_sides_of_m(gpt2x: Cli, launch: Path) -> None:
    args = ["task=generate", "decode.top_k=3,5", "-m", "decode.max_new_tokens=1,2", "hydra.sweep.dir=out"]
    assert gpt2x(*args).code == 0
    rows = read_csv(launch / "out" / "generations.csv")
    assert [(row["decode.top_k"], row["decode.max_new_tokens"], row["n_new_tokens"]) for row in rows] == [
        *(("3", "1", "1"), ("3", "2", "2"), ("5", "1", "1"), ("5", "2", "2"))
    ]


def test_swept_group_is_a_column_with_the_option_s_name(gpt2x: Cli, launch: Path) -> None:
    assert gpt2x(*SWEEP, "decode=greedy,sample").code == 0
    rows = read_csv(launch / "out" / "generations.csv")
    assert [(row["decode"], row["greedy"]) for row in rows] == [("greedy", "True"), ("sample", "False")]


def test_default_folders(gpt2x: Cli, launch: Path) -> None:
    assert gpt2x("-m", "task=generate", "decode.max_new_tokens=1", "seed=1,2").code == 0
    (sweep,) = (launch / "runs" / "sweeps").iterdir()
    assert re.fullmatch(r"\d{8}-\d{6}-\d{6}", sweep.name)
    assert len(read_csv(sweep / "generations.csv")) == 2


def test_a_bad_job_does_not_stop_the_good_ones(gpt2x: Cli, launch: Path) -> None:
    result = gpt2x(*SWEEP, "decode.top_k=5,0,7")
    assert result.code == 3
    (line,) = result.err.splitlines()
    assert line.startswith("gpt2x: error: decode.top_k=0")
    rows = read_csv(launch / "out" / "generations.csv")
    assert [row["decode.top_k"] for row in rows] == ["5", "7"]
    jobs = read_csv(launch / "out" / "jobs.csv")
    assert [job["status"] for job in jobs] == ["done", "failed", "done"]
    assert jobs[1]["error"] == line.removeprefix("gpt2x: error: ")


def test_a_bug_in_a_job_keeps_its_traceback(gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpt2x.tasks import generate

    def sometimes(config: Any, task: Any, run_dir: Path, run: Any = generate.run) -> Any:
        if config.seed == 1:
            raise RuntimeError("a bug")
        return run(config, task, run_dir)

    monkeypatch.setattr(generate, "run", sometimes)
    result = gpt2x(*SWEEP, "seed=0,1,2")
    assert result.code == 3
    assert "Traceback" in result.err
    assert "RuntimeError: a bug" in result.err
    jobs = read_csv(launch / "out" / "jobs.csv")
    assert [(job["status"], job["error"]) for job in jobs] == [
        ("done", ""),
        ("failed", "RuntimeError: a bug"),
        ("done", ""),
    ]


def test_an_interrupt_keeps_what_is_done(gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpt2x.tasks import generate

    def interrupted(config: Any, task: Any, run_dir: Path, run: Any = generate.run) -> Any:
        if config.seed == 1:
            raise KeyboardInterrupt
        return run(config, task, run_dir)

    monkeypatch.setattr(generate, "run", interrupted)
    assert gpt2x(*SWEEP, "seed=0,1,2").code == 130
    jobs = read_csv(launch / "out" / "jobs.csv")
    assert [job["status"] for job in jobs] == ["done", "interrupted", "waiting"]
    assert [row["seed"] for row in read_csv(launch / "out" / "generations.csv")] == ["0"]


def test_validate_gives_one_summary(gpt2x: Cli, launch: Path) -> None:
    result = gpt2x("-m", "dtype=float32,float64", "decode.max_new_tokens=4", "hydra.sweep.dir=out")
    assert result.code == 0
    rows = read_csv(launch / "out" / "summary.csv")
    assert [(row["dtype"], row["verdict"]) for row in rows] == [("float32", "pass"), ("float64", "pass")]
    assert {row["job"] for row in read_csv(launch / "out" / "parity.csv")} == {row["job"] for row in rows}
