"""hydra/launcher=joblib and ray: the results of the basic launcher, from jobs in other processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from hydra.core.config_store import ConfigStore

from gpt2x.cli.extras import EXTRAS
from tests.conftest import Cli, Result, assert_in, read_csv

SWEEP = ("-m", "task=generate", "decode.max_new_tokens=6", "prompt=Juliet", "decode.top_k=5,0,7", "seed=0,1")
SETTINGS = {"joblib": ("hydra.launcher.n_jobs=2",), "ray": ()}
# The other tests set these, and users do not.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "MKL_CBWR")}


def sweep(folder: Path, *options: str, **env: str) -> Result:
    """Six jobs in a process of their own; two of them fail."""
    command = [sys.executable, "-m", "gpt2x", *SWEEP, *options, "hydra.sweep.dir=out"]
    done = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT | env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 3, done
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def basic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sweep with the basic launcher, in two threads."""
    folder = tmp_path_factory.mktemp("basic")
    sweep(folder, OMP_NUM_THREADS="2")
    return folder / "out"


def jobs_in(folder: Path) -> list[dict[str, str]]:
    """jobs.csv without the times."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in read_csv(folder / "jobs.csv")]


@pytest.mark.parametrize("launcher", SETTINGS)
def test_the_same_results_in_other_processes(basic: Path, launch: Path, launcher: str) -> None:
    result = sweep(launch, f"hydra/launcher={launcher}", *SETTINGS[launcher])
    out = launch / "out"
    assert (out / "generations.csv").read_bytes() == (basic / "generations.csv").read_bytes()
    assert len(read_csv(out / "generations.csv")) == 4
    jobs = jobs_in(out)
    assert jobs == jobs_in(basic)
    assert [job["status"] for job in jobs] == ["done", "done", "failed", "failed", "done", "done"]
    assert "6 jobs: 4 done, 2 failed" in result.out
    assert "Juliet" not in result.out  # the texts of jobs that run at the same time would be mixed
    assert [line for line in result.err.splitlines() if not line.startswith("gpt2x: error: decode.top_k=0")] == []
    check_workers([out / job["job"] for job in jobs if job["status"] == "done"])


def check_workers(folders: list[Path]) -> None:
    """Each worker has its share of the cores, and loads the model for its first job only."""
    loads: dict[int, list[tuple[float, float]]] = {}
    for folder in folders:
        job = json.loads((folder / "job.json").read_text())
        (load,) = [float(row["seconds"]) for row in read_csv(folder / "timing.csv") if row["stage"] == "load"]
        loads.setdefault(job["pid"], []).append((job["started"], load))
        threads = json.loads((folder / "manifest.json").read_text())["threads"]
        assert threads <= max(1, (os.cpu_count() or 1) // 2)
    assert len(loads) < len(folders)
    for own in loads.values():
        (_, first), *later = sorted(own)
        assert all(load < first / 10 for _, load in later)


def test_ctrl_c_ends_the_workers(launch: Path) -> None:
    command = [sys.executable, "-m", "gpt2x", "-m", "task=generate", "decode.max_new_tokens=200", "seed=0,1,2"]
    options = ["decode.num_samples=500", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=out"]
    with subprocess.Popen([*command, *options], cwd=launch, stderr=subprocess.PIPE, start_new_session=True) as process:
        deadline = time.monotonic() + 120
        while not list(launch.glob("out/*/generations.csv")) and time.monotonic() < deadline:
            time.sleep(0.1)
        workers = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        try:
            _, printed = process.communicate(timeout=60)
        finally:
            process.kill()  # else the end of the block would wait for a process that ignores Ctrl-C
    assert process.returncode == 130, printed
    assert b"Traceback" not in printed
    assert len(workers) >= 2
    assert psutil.wait_procs(workers, timeout=20)[1] == []
    assert {job["status"] for job in jobs_in(launch / "out")} <= {"interrupted", "killed", "waiting"}


def test_a_worker_that_is_killed_costs_no_job_that_it_had_not_started(launch: Path) -> None:
    """As the system does when memory runs out. joblib then ends all its workers."""
    command = [sys.executable, "-m", "gpt2x", "-m", "task=generate", "decode.max_new_tokens=200", "seed=range(0,6)"]
    options = ["decode.num_samples=10", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=out"]
    with subprocess.Popen([*command, *options], cwd=launch, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 120
        while not (started := list(launch.glob("out/*/job.json"))) and time.monotonic() < deadline:
            time.sleep(0.1)
        os.kill(json.loads(started[0].read_text())["pid"], signal.SIGKILL)
        _, printed = process.communicate(timeout=240)
    assert process.returncode == 3, printed
    statuses = [job["status"] for job in jobs_in(launch / "out")]
    assert set(statuses) == {"done", "killed"}
    assert statuses.count("done") >= 4


@pytest.mark.parametrize("launcher", SETTINGS)
@pytest.mark.parametrize("override", ["prompts_file=-", "prompts_file=a.txt,-", 'prompt_file="-"'])
def test_standard_input_is_for_the_basic_launcher(gpt2x: Cli, launch: Path, launcher: str, override: str) -> None:
    line = gpt2x("-m", "task=generate", override, f"hydra/launcher={launcher}").error()
    assert_in(line, override.partition("=")[0], launcher, "standard input", "file")
    assert list(launch.iterdir()) == []


@pytest.mark.parametrize("option", EXTRAS)
def test_a_plugin_that_is_not_installed(gpt2x: Cli, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpt2x("--help")  # stores the schemas
    _, kind, name = option.split("/")
    for group, file in (("hydra", name), ("schema", name), ("hydra", f"{name}_plugin")):
        monkeypatch.delitem(ConfigStore.instance().repo[group].get(kind, {}), f"{file}.yaml", raising=False)
    line = gpt2x("-m", "task=generate", f"{option.rpartition('/')[0]}={name}", "seed=0,1").error()
    assert_in(line, f"{option.rpartition('/')[0]}={name}", f"pip install 'gpt2x[{EXTRAS[option]}]'")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("hydra.launcher.n_jobs=many", ("hydra.launcher.n_jobs", "many")),
        ("hydra.launcher.jobs=2", ("hydra.launcher.jobs",)),
    ],
)
def test_settings_of_a_launcher_are_checked(gpt2x: Cli, launch: Path, override: str, words: tuple[str, ...]) -> None:
    assert_in(gpt2x("-m", "task=generate", "seed=0,1", "hydra/launcher=joblib", override).error(), *words)
    assert list(launch.iterdir()) == []


def test_help_lists_the_launchers(gpt2x: Cli) -> None:
    text = gpt2x("hydra/launcher=joblib", "--help").out.partition("hydra/launcher=\n")[2]
    assert [line[:9].rstrip() for line in text.splitlines()[:3] if line[2:3] != " "] == ["  basic", "* joblib"]
    assert "(extra: ray)" in text
