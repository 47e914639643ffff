"""gpt2x/tasks/README.md says how to add a task: this follows its steps in a copy, and runs the task."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.conftest import NANO, REPO, read_csv

PAGE = (REPO / "gpt2x" / "tasks" / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^ *```(?:python|yaml) (.+?)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
BLOCKS = [(heading, textwrap.dedent(body)) for heading, body in FENCE.findall(PAGE)]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the project in which the steps are done."""
    copy = tmp_path / "copy"
    for folder in ("conf", "gpt2x", "tests"):
        shutil.copytree(REPO / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "data").symlink_to(REPO / "data")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(REPO / name, copy)
    for heading, block in BLOCKS:
        collection, _, file = heading.rpartition(" in ")
        path = copy / file
        if collection:
            path.write_text(with_entry(path.read_text(encoding="utf-8"), collection, block), encoding="utf-8")
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(block, encoding="utf-8")
    return copy


def with_entry(source: str, collection: str, block: str) -> str:
    """The source with the block's imports before its first import, and its entry at the end of the collection."""
    lines = block.splitlines(keepends=True)
    imports = "".join(line for line in lines if line.startswith("from "))
    entry = "".join(line for line in lines if not line.startswith("from "))
    source = re.sub(r"^(?=from |import )", imports, source, count=1, flags=re.MULTILINE)
    end = re.search(rf"^{collection}\b.*?(?=^[\]}})])", source, re.DOTALL | re.MULTILINE)
    assert end is not None, f"no {collection}"
    return source[: end.end()] + entry + source[end.end() :]


def python(copy: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(copy)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)


def test_the_steps_add_a_task(copy: Path, launch: Path) -> None:
    assert len(BLOCKS) == 7
    (launch / "text.txt").write_text("To be, or not to be", encoding="utf-8")
    done = python(copy, launch, "-m", "gpt2x", "task=count", "task.data=text.txt", "hydra.run.dir=run")
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = read_csv(launch / "run" / "count.csv")
    assert row["characters"] == "19"
    assert int(row["tokens"]) == len(expected_ids("To be, or not to be"))

    without = python(copy, launch, "-m", "gpt2x", "task=count")
    assert (without.returncode, without.stderr) == (
        2,
        "gpt2x: error: task=count: name a text file with task.data=FILE\n",
    )
    assert "a UTF-8 text file" in python(copy, launch, "-m", "gpt2x", "task=count", "--help").stdout
    unused = python(copy, launch, "-m", "gpt2x", "task=count", "task.data=text.txt", "seed=1")
    assert (unused.returncode, "task=count does not use it" in unused.stderr) == (2, True)


def expected_ids(text: str) -> list[int]:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(NANO).encode(text)


def test_the_structure_is_sound_afterwards(copy: Path) -> None:
    # Not tests/config/test_settings.py, which is about values of task=generate alone.
    of_config = ("tests/config/test_unused.py", "tests/config/test_options.py")
    files = ("tests/test_layers.py", "tests/runs/test_headers.py", *of_config)
    # Nor the commands whose settings are those of the other tasks.
    about_all = ("-k", "not test_it_is_refused")
    done = python(copy, copy, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *about_all, *files)
    assert done.returncode == 0, done.stdout
