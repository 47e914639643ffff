"""What the pages of the documentation say: commands run, links lead somewhere, and tables list what the code has."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from gpt2x.config.tasks import SCHEMAS
from gpt2x.tasks.registry import TABLES
from tests.conftest import NANO, REPO, Cli, Result, read_csv
from tests.parity.test_broken import IN_LOADING, IN_MODULES, IN_WIRING
from tests.runs.test_headers import NOT_JOINED

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
FOLDERS = ("conf", "gpt2x", "data", "runs", "tests", ".github")
PAGES = {"README.md": README} | {
    page.relative_to(REPO).as_posix(): page.read_text(encoding="utf-8")
    for folder in FOLDERS
    for page in sorted((REPO / folder).glob("**/*.md"))
}
COMMANDS = [
    (page, command)
    for page, text in PAGES.items()
    for block in re.findall(r"^```bash\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    for command in block.splitlines()
    if command
]
FILES = re.findall(r"^```yaml (conf/.*?)\n(.*?)^```$", PAGES["conf/README.md"], re.DOTALL | re.MULTILINE)
SCRIPTS = re.findall(r"^```python (\S+\.py)\n(.*?)^```$", "\n".join(PAGES.values()), re.DOTALL | re.MULTILINE)
SET_UP = ("make ", "python3 -m venv", "source ", "pip install")  # .ci/run runs these
ON_SLURM = [each for each in COMMANDS if "hydra/launcher=submitit_slurm" in each[1]]  # tests/cluster/ runs these
TO_RUN = {  # each command once, whichever of the pages have it
    re.sub(r"\s+#.*", "", command): (page, command)
    for page, command in reversed(COMMANDS)
    if not command.startswith(SET_UP) and (page, command) not in ON_SLURM
}
LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")


@pytest.mark.parametrize(("page", "command"), reversed(TO_RUN.values()))
def test_command(page: str, command: str, launch: Path, gpt2x: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    (launch / "README.md").write_text(README, encoding="utf-8")
    (launch / "prompt.txt").write_text('It\'s "to be", or not\n', encoding="utf-8")
    (launch / "prompts.txt").write_text("To be\nOr not to be\n", encoding="utf-8")
    (launch / "my_gpt2.py").write_text(PLAIN.read_text() + MINE)
    (launch / "book_gpt2.py").write_text(PLAIN.read_text() + "\nGPTModel = Book\n")
    (launch / "data").symlink_to(REPO / "data")
    for file, text in FILES:
        (launch / file).parent.mkdir(parents=True)
        (launch / file).write_text(text, encoding="utf-8")
    for file, text in SCRIPTS:
        (launch / file).write_text(text, encoding="utf-8")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PLAIN_WEIGHTS", str(NANO / "model.safetensors"))
    folder = launch
    if "pytest" in command:  # which test it runs, without running it again
        folder, command = REPO, f"{command.replace('env/bin/python', sys.executable)} --collect-only -q"
    elif "task.steps=8000" in command:  # it took 71 minutes
        command += " --cfg job"
    elif "task.reference=" in command:  # what the command before it made
        command = f"python -m gpt2x task.save_reference=reference/nano.safetensors && {command}"
    elif sweep := re.search(r"(sweep=\w+) task=(collect|report)", command):  # of the command before it
        command = f"python -m gpt2x {sweep[1]} task=generate decode.max_new_tokens=1 && {command}"
    done = _run(command, folder, gpt2x)
    if "weights=auto" in command:  # no network in tests: that it does download is for test_hub.py
        assert done.code == 2
        assert "weights.path=FILE" in done.err
    elif "task=download" in command:  # likewise: test_download.py
        assert done.code == 2
        assert "HF_HUB_OFFLINE is set" in done.err
    else:
        assert done.code == 0, done.out + done.err
    if "pytest" in command:
        assert re.search(r"[1-9]\d* (tests? )?collected|test_\w+\.py: [1-9]", done.out), done.out


def _run(command: str, folder: Path, gpt2x: Cli) -> Result:
    """Runs a command as bash does: in this process, which has loaded torch, what only calls gpt2x, else in bash."""
    parts = command.split(" && ")
    if all(re.fullmatch(r"python -m gpt2x [^|;<>$]*", part) for part in parts) and "hydra/launcher" not in command:
        for part in parts:
            done = gpt2x(*shlex.split(part, comments=True)[3:])
            if done.code:
                break
        return done
    ran = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    return Result(ran.returncode, ran.stdout, ran.stderr)


def test_there_are_commands_of_every_task() -> None:
    tasks = {file.stem for file in (REPO / "conf" / "task").glob("*.yaml")}
    commands = [command for page, command in COMMANDS if page == "README.md"]
    assert {task for task in tasks if any(f"task={task}" in command for command in commands)} == tasks


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page: str) -> None:
    for target, anchor in LINK.findall(PAGES[page]):
        if target.startswith("http"):
            continue
        file = (REPO / page).parent / target if target else REPO / page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor[1:] in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("task", sorted(SCHEMAS))
def test_the_page_of_settings_lists_those_of_each_task(task: str) -> None:
    (row,) = re.findall(rf"^\| {task} \|([^|]*)\|([^|]*)\|$", PAGES["conf/README.md"], re.MULTILINE)
    own, shared = ([key.strip() for key in cell.split(",") if key.strip()] for cell in row)
    assert set(own) == {field.name for field in fields(SCHEMAS[task])} - {"name"}  # type: ignore[arg-type]
    assert set(shared) == set(SCHEMAS[task].uses)


def test_ci_runs_the_set_up_commands() -> None:
    script = (REPO / ".ci" / "run").read_text()
    run = {word for line in re.findall(r"^make ([^#\n]*)", script, re.MULTILINE) for word in line.split()}
    promised = {command.split()[1] for _, command in COMMANDS if command.startswith("make ")}
    assert {"validate", "test"} <= promised <= run


def test_the_number_of_broken_models_is_the_test_suites() -> None:
    n = len({name for name, _, _ in (*IN_MODULES, *IN_WIRING, *IN_LOADING)})
    text = " ".join(README.split())
    assert f"The test suite has {n} broken models" in text
    assert f"for {n} of {n} validate names the right place" in text


@pytest.mark.parametrize("name", TABLES | NOT_JOINED)
def test_columns(name: str) -> None:
    (row,) = re.findall(rf"^\| `{name}` \|[^|]*\|([^|]*)\|$", RESULTS, re.MULTILINE)
    columns = [field.name for field in fields((TABLES | NOT_JOINED)[name])]
    assert [column.strip() for column in row.split(",")] == columns


def test_a_preset_of_ones_own_sets_everything_that_it_says(gpt2x: Cli, launch: Path) -> None:
    ((file, text),) = FILES
    (launch / file).parent.mkdir(parents=True)
    (launch / file).write_text(text, encoding="utf-8")
    assert gpt2x("experiment=juliet", "hydra.sweep.dir=sweep").code == 0
    rows = read_csv(launch / "sweep" / "generations.csv")
    assert [(row["prompt"], row["n_new_tokens"], row["top_p"]) for row in rows] == [
        ("Juliet", "8", "0.5"),
        ("Juliet", "8", "0.9"),
    ]
