"""sweep=NAME: what is done is not run again; failures are tried again; the table does not show that it was resumed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gpt2x.runs import code
from tests.conftest import NANO, Cli, Refused, Result, assert_in, read_csv

FAST = ("task=generate", "decode.max_new_tokens=1", "prompt=Now")
SWEEP = ("sweep=mine", *FAST)
ROOT = Path("runs", "sweeps", "mine")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds of the jobs that have run, in order. Seeds above 99 fail."""
    from gpt2x.tasks import generate

    seeds: list[int] = []

    def counted(config: Any, task: Any, run_dir: Path, run: Any = generate.run) -> Any:
        seeds.append(config.seed)
        if config.seed > 99:
            raise RuntimeError(f"no luck with {config.seed}")
        return run(config, task, run_dir)

    monkeypatch.setattr(generate, "run", counted)
    return seeds


def jobs() -> list[dict[str, Any]]:
    return read_csv(ROOT / "jobs.csv")


def seeds() -> list[str]:
    """The seeds in the joined table."""
    return [row["seed"] for row in read_csv(ROOT / "generations.csv")]


def test_a_longer_and_reordered_list_runs_what_is_missing(gpt2x: Cli, launch: Path, started: list[int]) -> None:
    assert gpt2x(*SWEEP, "seed=1,2").code == 0
    result = gpt2x(*SWEEP, "seed=3,2,4,1")
    assert (result.code, result.err) == (0, "gpt2x: 2 of 4 jobs are done already\n")
    assert started == [1, 2, 3, 4]
    assert gpt2x(*FAST, "-m", "hydra.sweep.dir=whole", "seed=3,2,4,1").code == 0
    for name in ("generations.csv",):
        assert (ROOT / name).read_bytes() == (launch / "whole" / name).read_bytes()
    assert [job["attempts"] for job in jobs()] == ["1"] * 4
    assert gpt2x(*SWEEP, "seed=2").code == 0
    assert seeds() == ["3", "4", "1", "2"]  # the jobs of earlier commands stay in the table
    assert started[4:] == [3, 2, 4, 1]


def test_a_setting_may_be_swept_later(gpt2x: Cli, launch: Path, started: list[int]) -> None:
    """A job that has the default of the new setting is the same job."""
    assert gpt2x(*SWEEP, "seed=1,2").code == 0
    assert gpt2x(*SWEEP, "seed=1,2", "decode.temperature=1.0,0.5").code == 0
    assert len(started) == 4
    rows = read_csv(ROOT / "generations.csv")
    assert [row["decode.temperature"] for row in rows] == ["1.0", "0.5", "1.0", "0.5"]
    assert list(rows[0])[:3] == ["job", "decode.temperature", "prompt_id"]  # no setting of the sweep is a column


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("generations.csv", "missing"),
        ("generations.csv", "changed"),
        ("timing.csv", "short"),
        ("manifest.json", "missing"),
    ],
)
def test_a_job_whose_results_are_not_whole_runs_again(
    gpt2x: Cli, launch: Path, started: list[int], name: str, damage: str
) -> None:
    assert gpt2x(*SWEEP, "seed=1,2").code == 0
    table = (ROOT / "generations.csv").read_bytes()
    file = ROOT / jobs()[1]["job"] / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content[:-1] if damage == "short" else content[:-3] + b"7" + content[-2:])
    if name.endswith(".csv"):
        shown = gpt2x("task=collect", "sweep=mine")
        assert shown.code == 0
        assert jobs()[1]["status"] == "damaged"
        assert_in(jobs()[1]["error"], name)
        assert seeds() == ["1"]
    assert gpt2x(*SWEEP, "seed=1,2").code == 0
    assert started == [1, 2, 2]
    assert (ROOT / "generations.csv").read_bytes() == table


def test_what_failed_is_tried_again(gpt2x: Cli, launch: Path, started: list[int]) -> None:
    result = gpt2x(*SWEEP, "seed=1,100,2,101")
    assert result.code == 3
    assert seeds() == ["1", "2"]
    assert [job["error"] for job in jobs()][1::2] == [f"RuntimeError: no luck with {seed}" for seed in (100, 101)]
    for job, seed in zip(jobs()[1::2], (100, 101), strict=True):  # each is printed
        assert f"failed {job['job']} seed={seed}: RuntimeError: no luck with {seed}" in result.out
    assert gpt2x(*SWEEP, "seed=1,100,2,101").code == 3
    assert started == [1, 100, 2, 101, 100, 101]
    assert [job["attempts"] for job in jobs()] == ["1", "2", "1", "2"]


def test_retries(gpt2x: Cli, launch: Path, started: list[int]) -> None:
    assert gpt2x(*SWEEP, "seed=100,1,101", "retries=2").code == 3
    assert started == [100, 1, 101, 100, 101, 100, 101]
    assert [job["attempts"] for job in jobs()] == ["3", "1", "3"]


def test_a_retry_that_succeeds(gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpt2x.tasks import generate

    runs: list[int] = []

    def second_time(config: Any, task: Any, run_dir: Path, run: Any = generate.run) -> Any:
        runs.append(config.seed)
        if config.seed == 1 and runs.count(1) == 1:
            raise RuntimeError("once")
        return run(config, task, run_dir)

    monkeypatch.setattr(generate, "run", second_time)
    assert gpt2x(*SWEEP, "seed=1,2", "retries=1", "fail_fast=true").code == 0
    assert runs == [1, 2, 1]  # after all others
    assert seeds() == ["1", "2"]
    assert not list(ROOT.glob(".*"))


def test_wrong_input_is_not_tried_again_at_once(gpt2x: Cli, launch: Path) -> None:
    assert gpt2x(*SWEEP, "decode.top_k=0,1", "retries=3").code == 3
    assert [(job["status"], job["attempts"]) for job in jobs()] == [("failed", "1"), ("done", "1")]


def test_fail_fast(gpt2x: Cli, launch: Path, started: list[int]) -> None:
    result = gpt2x(*SWEEP, "seed=1,100,2,3", "fail_fast=true")
    assert result.code == 3
    assert result.err.endswith("gpt2x: error: a job has failed, and fail_fast=true starts no more\n")
    assert started == [1, 100]
    assert [job["status"] for job in jobs()] == ["done", "failed", "waiting", "waiting"]
    assert_in(jobs()[2]["overrides"], "seed=2")
    shown = [line.split() for line in result.out.splitlines()]
    assert ["status", "seed", "samples", "logprob/token", "new", "tokens"] in shown
    assert [row for row in shown if row[:1] == ["waiting"]] == [["waiting", "2"], ["waiting", "3"]]
    assert seeds() == ["1"]
    assert gpt2x(*SWEEP, "seed=1,2,3").code == 0


def test_other_code_is_reported_and_rerun_on_demand(
    gpt2x: Cli, launch: Path, started: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gpt2x(*SWEEP, "seed=1,2").code == 0
    before = code._gpt2x()
    monkeypatch.setattr(code, "_gpt2x", lambda: before | {"torch": "3.0"})
    result = gpt2x(*SWEEP, "seed=1,2")
    assert result.code == 0
    assert "2 stale, as jobs.csv explains; rerun=stale runs them again" in result.out
    assert [job["stale"] for job in jobs()] == [f"torch {before['torch']}, now 3.0"] * 2
    assert started == [1, 2]
    assert gpt2x(*SWEEP, "seed=1,2,3", "rerun=stale").code == 0
    assert started == [1, 2, 1, 2, 3]
    assert [(job["stale"], job["attempts"]) for job in jobs()] == [("", "2"), ("", "2"), ("", "1")]
    assert gpt2x(*SWEEP, "seed=1,2,3", "rerun=stale").code == 0
    assert len(started) == 5
    monkeypatch.setattr(code, "_gpt2x", lambda: before | {"torch": "4.0"})
    monkeypatch.setattr("gpt2x.cli.job.code_of", lambda settings: before)  # on another machine
    assert gpt2x(*SWEEP, "seed=1", "rerun=stale").code == 0  # it runs once, although it stays stale
    assert len(started) == 6


def test_other_weights_are_reported_and_rerun_on_demand(gpt2x: Cli, launch: Path, started: list[int]) -> None:
    shutil.copytree(NANO, launch / "tiny")
    sweep = (*SWEEP, "weights.path=tiny", "seed=1,2")
    assert gpt2x(*sweep).code == 0
    file = launch / "tiny" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert gpt2x(*sweep).code == 0
    assert started == [1, 2]
    old = jobs()
    assert [job["stale"] for job in old] == ["other content of weights"] * 2
    assert gpt2x(*sweep, "rerun=stale").code == 0
    assert started == [1, 2, 1, 2]
    new = [job for job in jobs() if not job["stale"]]
    assert len(jobs()) == 4
    assert [job["job"] for job in new] == [row["job"] for row in read_csv(ROOT / "generations.csv")]
    assert {job["job"] for job in new}.isdisjoint(job["job"] for job in old)
    assert gpt2x(*sweep).code == 0
    assert len(started) == 4
    assert gpt2x(*SWEEP, "weights.path=tiny,other", "seed=1").code == 3  # another path is another job


def test_the_subject_s_file_is_part_of_the_code(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    for target in (f"{file}:GPT", str(file)):  # a recording has no name after its file
        file.write_text("GPT = 1")
        settings = {"subject.target": target}
        before = code.code_of(settings)
        assert code.difference(before, code.code_of(settings)) is None
        file.write_text("GPT = 2")
        assert_in(code.difference(before, code.code_of(settings)) or "", "subject.target")
    assert "subject.target" not in code.code_of({"subject.target": "package.module:GPT"})


def test_jobs_keep_their_numbers(gpt2x: Cli, launch: Path, started: list[int]) -> None:
    """A setting may contain Hydra's number of the job: it does not depend on which jobs are done."""
    swept = ("seed=${hydra:job.num}", "decode.top_k=1,2,3")
    assert gpt2x(*SWEEP, *swept).code == 0
    assert started == [0, 1, 2]
    (ROOT / jobs()[0]["job"] / "generations.csv").unlink()
    (ROOT / jobs()[2]["job"] / "generations.csv").unlink()
    assert gpt2x(*SWEEP, *swept).code == 0
    assert started == [0, 1, 2, 0, 2]
    assert [job["attempts"] for job in jobs()] == ["2", "1", "2"]


def test_a_batch_at_a_time(gpt2x: Cli, launch: Path, started: list[int]) -> None:
    batches = "hydra.sweeper.max_batch_size=2"
    assert gpt2x(*SWEEP, "seed=1,2,3", batches).code == 0
    assert gpt2x(*SWEEP, "seed=1,2,3,4", batches).code == 0
    assert started == [1, 2, 3, 4]
    assert seeds() == ["1", "2", "3", "4"]


def test_the_settings_of_a_sweep_are_no_settings_of_its_jobs(gpt2x: Cli, launch: Path) -> None:
    assert gpt2x(*SWEEP, "seed=1,2", "retries=1").code == 0
    assert gpt2x(*FAST, "-m", "hydra.sweep.dir=out", "seed=1,2").code == 0
    names = [[row["job"] for row in read_csv(root / "jobs.csv")] for root in (ROOT, launch / "out")]
    assert names[0] == names[1]
    assert [job["overrides"] for job in jobs()] == [f"{' '.join(FAST)} seed={seed}" for seed in (1, 2)]
    assert json.loads((ROOT / "sweep.json").read_text())["invocations"][0]["overrides"][0] == "sweep=mine"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("sweep=a/b",), ["sweep=a/b", "not the name of a folder"]),
        (("sweep=..",), ["sweep=.."]),
        (("sweep=.hidden",), ["sweep=.hidden"]),
        (("sweep=a,b",), ["sweep=a,b", "one value"]),
        (("sweep=",), ["sweep=", "one value"]),
        (("sweep=a", "hydra.sweep.dir=b"), ["sweep", "hydra.sweep.dir", "contradict"]),
        (("sweep=a", "hydra.run.dir=b"), ["hydra.run.dir"]),
        (("sweep=a", "--run"), ["--run", "sweep"]),
        (("sweep=a", "retries=-1"), ["retries=-1", "at least 0"]),
        (("sweep=a", "retries=1,2"), ["retries=1,2", "one value"]),
        (("sweep=a", "rerun=all"), ["rerun=all", "stale"]),
        (("retries=1",), ["retries", "sweep=NAME"]),
        (("fail_fast=true",), ["fail_fast", "sweep=NAME"]),
        (("rerun=stale",), ["rerun", "sweep=NAME"]),
        (("task=collect", "-m", "sweep=a"), ["-m"]),
        (("task=collect", "sweep=a", "retries=1"), ["retries", "task=collect"]),
        (("task=collect", "sweep=a", "task.runs=b"), ["sweep", "task.runs", "contradict"]),
        (("task=collect", "sweep=nowhere"), ["sweep=nowhere", "runs/sweeps/nowhere"]),
        (("task=collect", "task.runs=nowhere"), ["task.runs=nowhere"]),
        (("task=collect",), ["sweep=NAME", "task.runs=FOLDER"]),
        (("task=collect", "seed=1", "task.runs=."), ["seed", "task=collect"]),
    ],
)
def test_refused(refused: Refused, args: tuple[str, ...], words: list[str]) -> None:
    assert_in(refused(*args), *words)


def test_settings_of_a_command_without_a_sweep(gpt2x: Cli) -> None:
    """They can be shown, without a sweep."""
    result = gpt2x("sweep=mine", "task=generate", "--cfg", "job")
    assert (result.code, result.err) == (0, "")
    assert "sweep: mine" in result.out


def summary_of(result: Result) -> str:
    return next(line for line in result.out.splitlines() if " jobs: " in line)


def test_the_state_without_running_anything(gpt2x: Cli, launch: Path, started: list[int]) -> None:
    assert gpt2x(*SWEEP, "seed=1,100,2").code == 3
    tables = {name: (ROOT / name).read_bytes() for name in ("jobs.csv", "generations.csv", "timing.csv")}
    for name in tables:
        (ROOT / name).unlink()
    for args in (("sweep=mine",), (f"task.runs={ROOT}",)):
        result = gpt2x("task=collect", *args)
        assert (result.code, result.err) == (0, "")
        assert summary_of(result) == "3 jobs: 2 done, 1 failed"
        assert result.out.endswith(f"results in {ROOT}\n")
        assert {name: (ROOT / name).read_bytes() for name in tables} == tables
    assert len(started) == 3
    assert [path.name for path in (launch / "runs").iterdir()] == ["sweeps"]  # it is no run itself


def test_any_runs_are_collected(gpt2x: Cli, launch: Path) -> None:
    assert gpt2x(*SWEEP, "seed=1,2").code == 0
    for folder, top_k in (("runs/a", 3), ("runs/b", 4)):
        assert gpt2x(*FAST, f"decode.top_k={top_k}", f"hydra.run.dir={folder}").code == 0
    for _ in range(2):  # the second time there is the first table, too
        assert gpt2x("task=collect", "task.runs=runs", "hydra.run.dir=runs/all").code == 0
        rows = read_csv(launch / "runs" / "all" / "generations.csv")
        names = [f"sweeps/mine/{job['job']}" for job in jobs()]
        assert [row["job"] for row in rows] == ["a", "b", *sorted(names)]
        assert [row["decode.top_k"] for row in rows] == ["3", "4", "", ""]
        assert len(read_csv(launch / "runs" / "all" / "jobs.csv")) == 4
    assert gpt2x("task=collect", "task.runs=runs/a", "hydra.run.dir=one").code == 0
    assert [job["job"] for job in read_csv(launch / "one" / "jobs.csv")] == ["a"]
    for task in ("collect", "report"):
        line = gpt2x(f"task={task}", "task.runs=runs", "hydra.run.dir=runs/b").error()
        assert_in(line, "runs/b", "task=generate", "hydra.run.dir")
    assert not (launch / "runs" / "b" / "jobs.csv").exists()


def test_joblib(gpt2x_process: Cli, launch: Path) -> None:
    """Jobs in other processes: the same results, and what failed is known from its folder."""
    parallel = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    result = gpt2x_process(*SWEEP, "decode.top_k=1,0,2", "retries=1", *parallel)
    assert result.code == 3, result
    assert [(job["status"], job["attempts"]) for job in jobs()] == [("done", "1"), ("failed", "1"), ("done", "1")]
    assert gpt2x_process(*SWEEP, "decode.top_k=2,1").code == 0
    assert [job["attempts"] for job in jobs()] == ["1", "1", "1"]


def test_a_job_that_does_not_fit_in_memory_is_no_failure(
    gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpt2x.errors import DoesNotFitError
    from gpt2x.tasks import generate

    def too_large(config: Any, task: Any, run_dir: Path, run: Any = generate.run) -> Any:
        if config.seed == 1:
            raise DoesNotFitError("too large")
        return run(config, task, run_dir)

    monkeypatch.setattr(generate, "run", too_large)
    assert gpt2x(*SWEEP, "seed=1,2", "fail_fast=true", "retries=2").code == 0
    assert [(job["status"], job["attempts"]) for job in jobs()] == [("skipped", "1"), ("done", "1")]


def test_a_launcher_that_cannot_start_leaves_nothing(gpt2x: Cli, launch: Path) -> None:
    result = gpt2x(*SWEEP, "seed=1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=0")
    assert_in(result.error(), "n_jobs")
    assert list(launch.iterdir()) == []
