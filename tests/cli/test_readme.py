"""The README's commands run, and its table of columns is the CSVs'."""

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from gpt2x.runs.sweep import JobRow
from gpt2x.tasks.registry import TABLES
from tests.conftest import NANO, REPO
from tests.parity.test_broken import IN_LOADING, IN_MODULES, IN_WIRING

PLAIN = REPO / "tests" / "subjects" / "plain.py"
MINE = """

load = own


class Renamed(GPT2):
    def __init__(self, a):
        super().__init__(a)
        self.tok, self.pos = self.wte, self.wpe
        del self.wte, self.wpe

    def embed(self, ids, positions):
        return self.tok(ids) + self.pos(positions)
"""

README = (REPO / "README.md").read_text(encoding="utf-8")
RESULTS = (REPO / "runs" / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line]
SET_UP = ("make ", "python3 -m venv", "source ", "pip install")  # .ci/run runs these


@pytest.mark.parametrize("command", [command for command in COMMANDS if not command.startswith(SET_UP)])
def test_command(command: str, launch: Path) -> None:
    (launch / "README.md").write_text(README, encoding="utf-8")
    (launch / "prompts.txt").write_text("To be\nOr not to be\n", encoding="utf-8")
    (launch / "my_gpt2.py").write_text(PLAIN.read_text() + MINE)
    (launch / "book_gpt2.py").write_text(PLAIN.read_text() + "\nGPTModel = Book\n")
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    env |= {"PLAIN_WEIGHTS": str(NANO / "model.safetensors")}
    if "task.reference=" in command:  # what the command before it made
        command = f"python -m gpt2x task.save_reference=reference/nano.safetensors && {command}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=launch, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    if "weights=auto" in command:  # no network in tests: that it does download is for test_hub.py
        assert done.returncode == 2
        assert "weights.path=FILE" in done.stderr
    else:
        assert done.returncode == 0, done.stdout + done.stderr


def commands_of_other_pages() -> list[str]:
    """Commands in the bash blocks of all pages but the README itself, those of make left out: .ci/run runs them."""
    folders = ("conf", "gpt2x", "data", "runs", "tests", ".github")
    pages = [page for folder in folders for page in (REPO / folder).glob("**/*.md")]
    blocks = [block for page in pages for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)]
    commands = [line for block in blocks for line in block.splitlines() if line and not line.startswith("make ")]
    assert len(commands) >= 2
    return commands


@pytest.mark.parametrize("command", commands_of_other_pages())
def test_command_of_another_page(command: str, launch: Path) -> None:
    folder, more = launch, ""
    if "pytest" in command:  # which test it runs, without running it again
        folder, more = REPO, "--collect-only -q"
    elif "task=train" in command:  # it took 71 minutes
        more = "--cfg job"
    command = command.replace("env/bin/python", sys.executable)
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", f"{command} {more}"],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if "pytest" in command:
        assert re.search(r"[1-9]\d* (tests? )?collected|test_\w+\.py: [1-9]", done.stdout), done.stdout


def test_there_are_commands_of_every_task() -> None:
    tasks = {file.stem for file in (REPO / "conf" / "task").glob("*.yaml")}
    assert {task for task in tasks if any(f"task={task}" in command for command in COMMANDS)} == tasks


def test_ci_runs_the_set_up_commands() -> None:
    script = (REPO / ".ci" / "run").read_text()
    for command in COMMANDS:
        if command.startswith("make "):
            assert f"\n{command.partition('#')[0].strip()}" in script


def test_the_number_of_broken_models_is_the_test_suites() -> None:
    n = len({name for name, _, _ in (*IN_MODULES, *IN_WIRING, *IN_LOADING)})
    assert f"The test suite has {n} broken models" in README
    assert f"for {n} of {n} validate names the right place" in README


@pytest.mark.parametrize("name", [*TABLES, "jobs.csv"])
def test_columns(name: str) -> None:
    (row,) = re.findall(rf"^\| `{name}` \|[^|]*\|([^|]*)\|$", RESULTS, re.MULTILINE)
    columns = [field.name for field in fields((TABLES | {"jobs.csv": JobRow})[name])]
    assert [column.strip() for column in row.split(",")] == columns
