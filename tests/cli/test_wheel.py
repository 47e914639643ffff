"""The main job from a wheel, installed elsewhere, in an empty directory."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.conftest import REPO, read_csv


def run(*command: str | Path, cwd: Path) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # it may lead to this checkout
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_wheel_does_the_main_job_from_an_empty_directory(tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", cwd=REPO)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    elsewhere = tmp_path / "elsewhere"
    run(sys.executable, "-m", "venv", "--without-pip", elsewhere, cwd=tmp_path)
    python = elsewhere / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    # Its dependencies come from this environment: only the path, so that the editable gpt2x here is not seen.
    (site,) = elsewhere.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    empty = tmp_path / "empty"
    empty.mkdir()
    assert run(python, "-c", "import gpt2x; print(gpt2x.__file__)", cwd=empty).startswith(str(elsewhere))
    assert (site / "gpt2x" / "py.typed").is_file()  # without it, type checkers ignore the annotations of gpt2x
    assert (site / "gpt2x" / "example.ipynb").is_file()
    for name in ("page.html.jinja", "page.css", "page.js"):  # of task=report
        assert (site / "gpt2x" / "reports" / "page" / name).is_file()
    assert "PASS" in run(elsewhere / "bin" / "gpt2x", cwd=empty)
    (folder,) = (empty / "runs" / "validate").iterdir()
    (summary,) = read_csv(folder / "summary.csv")
    assert summary["verdict"] == "pass"

    small = ("decode.top_p=0.9", "decode.temperature=1.0", "seed=0", "decode.max_new_tokens=1", "hydra.sweep.dir=study")
    run(elsewhere / "bin" / "gpt2x", "experiment=nucleus", *small, cwd=empty)  # with prompts that lie in the wheel
    assert len(read_csv(empty / "study" / "generations.csv")) == 8
