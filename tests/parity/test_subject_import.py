"""What is taken from a subject's file: what defines the model, without the script around it."""

import sys
from pathlib import Path

import pytest
import torch

from gpt2x.config.subject import SubjectConfig
from gpt2x.errors import UserError
from gpt2x.model.config import GPT2Config
from gpt2x.parity.subject import SubjectError, import_target
from gpt2x.parity.subject.target import Target
from tests.conftest import Cli, assert_in
from tests.parity.conftest import PLAIN

SMALL = GPT2Config(vocab_size=10, n_positions=8, n_embd=4, n_layer=1, n_head=1)
HEAD = "import torch\nfrom torch import nn\n"
MODEL = HEAD + "class Model(nn.Linear):\n    def __init__(self, config):\n        super().__init__(config.n_embd, 2)\n"
SCRIPT = f"""
import sys
sys.path.append({str(PLAIN.parent)!r})
import argparse
import no_such_tracker
from plain import GPT2
from no_such_package.plots import plot as draw

parser = argparse.ArgumentParser()
parser.add_argument("--steps", required=True)
steps = parser.parse_args().steps
text = open("input.txt").read()

class Model(GPT2):
    def __init__(self, config):
        super().__init__(config)

    def show(self):
        draw(self)

model = Model(no_such_tracker.config)
for step in range(10**12):
    model(text)
"""


@pytest.fixture(autouse=True)
def _in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def taken(code: str | dict[str, str], target: str = "file.py:Model", **settings: float) -> Target:
    """Imports the target after the files have been written into the working directory."""
    for name, content in ({"file.py": code} if isinstance(code, str) else code).items():
        file = Path(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return import_target(SubjectConfig(target, "copy", **settings))


def built(code: str | dict[str, str], target: str = "file.py:Model") -> torch.nn.Module:
    return taken(code, target).build(SMALL, torch.float32)


def test_a_script_that_trains_is_validated(gpt2x: Cli, launch: Path) -> None:
    (launch / "train.py").write_text(SCRIPT)
    stages = "task.stages=[config,logits]"
    result = gpt2x("model=nano", "subject.target=train.py:Model", stages)
    assert result.code == 0, result.err + result.out
    assert "left out of the file, as the model does not need it: lines 9-12, 21-23" in result.out
    assert_in(result.out, "missing, which raises if the model uses it: draw: ModuleNotFoundError", "train.py, line 7")
    assert "no_such_tracker" not in result.out  # nobody asked for it
    line = gpt2x("model=nano", "subject.target=train.py:Model", "subject.import=whole", stages).error()
    assert_in(line, "subject.target=train.py:Model: cannot be imported", "no_such_tracker", "train.py, line 5")


def test_import_mode_that_does_not_exist(gpt2x: Cli, launch: Path) -> None:
    (launch / "model.py").write_text(MODEL)
    line = gpt2x("subject.target=model.py:Model", "subject.import=all").error()
    assert_in(line, "subject.import=all", "definitions, whole")


CHANGES = """
sizes = {"n": 1}
sizes["n"] = 2
sizes.update(m=3)
sizes |= {"k": 4}
torch.manual_seed(0)
"""
ARGUMENTS = """
from argparse import ArgumentParser
parser = ArgumentParser()
parser.add_argument("--n", default=3)
n = parser.parse_args().n
"""
INSIDE = "        self.found = {found}\n"


@pytest.mark.parametrize(
    ("before", "used", "expected"),
    [
        ("total = 2 * 3\n", "total", 6),
        (CHANGES, "sizes", {"n": 2, "m": 3, "k": 4}),
        (
            "import argparse as a\np = a.ArgumentParser()\np.add_argument('--n', default=3)\nn = p.parse_args().n\n",
            "n",
            3,
        ),
        ("try:\n    import no_such_package\n    fast = True\nexcept ImportError:\n    fast = False\n", "fast", False),
        ("if torch.rand(1) < 2:\n    kind = 'cpu'\nelse:\n    kind = 'other'\n", "kind", "cpu"),
        ("total = 0\nfor n in range(4):\n    total = n\n", "n", 3),
        ("step = 1\nwhile True:\n    step = step + 1\n", "step", 1),
        ("def half(x: 'int') -> int:\n    return x // TWO\nTWO = 2\n", "half(8)", 4),
        ("from dataclasses import dataclass\n@dataclass\nclass C:\n    n: int = 5\nC.n = 7\n", "C.n", 7),
        ("class C:\n    pass\nsetattr(C, 'n', 7)\n", "C.n", 7),
        ("from math import *\n", "floor(2.5)", 2),
        ("%matplotlib inline\n!pip install torch\nn = 1\n", "n", 1),
        ("n = 1\nif __name__ == '__main__':\n    n = 2\n", "n", 1),
        (
            "from __future__ import annotations\ndef f(x: no_such_name) -> None: ...\n",
            "f.__annotations__['x']",
            "no_such_name",
        ),
    ],
)
def test_what_the_model_needs_is_run(before: str, used: str, expected: object) -> None:
    start = before if "__future__" in before else ""
    code = start + MODEL.replace("class Model", f"{'' if start else before}class Model")
    assert built(code + INSIDE.format(found=used)).found == expected


def test_what_only_the_main_program_needs_is_left_out() -> None:
    code = "from pathlib import Path\nn = 1\nfile = Path('made').touch()\nif __name__ == '__main__':\n    n = file\n"
    assert built(code + MODEL + INSIDE.format(found="n")).found == 1
    assert not Path("made").exists()


def test_a_statement_is_run_once() -> None:
    sibling = "from pathlib import Path\nn = Path('made').open('a').write('x')\na = n\nb = n\n"
    code = "from sibling import a\nfrom sibling import b\n" + MODEL + INSIDE.format(found="(a, b)")
    taken({"file.py": code, "sibling.py": sibling})
    assert Path("made").read_text() == "x"


@pytest.mark.parametrize(
    "statement",
    [
        "raise SystemExit(3)",
        "open('input.txt')",
        "import no_such_package",
        "from file import no_such_name",
        "Path('made').touch()",
        "import urllib.request as r; page = r.urlopen('http://127.0.0.1:9/')",
        "answer = input()",
        "class Other(no_such_name): ...",
        "while True: pass",
    ],
)
def test_what_the_model_does_not_need_is_left_out(statement: str) -> None:
    assert built(f"from pathlib import Path\n{statement}\n{MODEL}\n{statement}\n") is not None
    assert not Path("made").exists()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("from no_such_package import Base\nclass Model(Base): ...", ["No module named 'no_such_package'", "line 1"]),
        ("import no_such_package as n\n@n.decorated\nclass Model: ...", ["'no_such_package'", "file.py, line 1"]),
        ("n = 1 / 0\nclass Model:\n    m = n + 1", ["ZeroDivisionError", "file.py, line 1"]),
        ("text = open('input.txt').read()\ndef Model(a=len(text)): ...", ["FileNotFoundError", "file.py, line 1"]),
        (
            "import socket\ns = socket.create_connection(('127.0.0.1', 9))\nModel = s.x",
            ["not use the network", "line 2"],
        ),
    ],
)
def test_what_is_needed_and_fails_is_named(code: str, words: list[str]) -> None:
    with pytest.raises(UserError) as raised:
        taken(code)
    assert_in(str(raised.value), "subject.target=file.py:Model: cannot be imported", *words)


@pytest.mark.parametrize(
    "use", ["gone()", "gone.part.run()", "len(gone)", "gone + 1", "1 * gone", "isinstance(1, gone)"]
)
def test_a_placeholder_raises_when_it_is_used(use: str) -> None:
    target = taken("import no_such_package as gone\n" + MODEL + f"        {use}\n")
    with pytest.raises(SubjectError, match=r"No module named 'no_such_package' \(file.py, line 1\)"):
        target.build(SMALL, torch.float32)


def test_a_package_that_pip_knows_is_named_with_the_command() -> None:
    target = taken("import rotary_embedding_torch as gone\n" + MODEL + "        gone.RotaryEmbedding(4)\n")
    with pytest.raises(SubjectError, match=r"\(file.py, line 1\): pip install rotary-embedding-torch$"):
        target.build(SMALL, torch.float32)


def test_a_name_that_a_class_binds_as_well_is_needed() -> None:
    code = MODEL + "    @property\n    def dtype(self) -> dtype:\n        return self.weight.dtype\n"
    assert built("from torch import dtype\n" + code).dtype == torch.float32


def test_a_readme_in_a_folder_of_a_project_is_not_its_root() -> None:
    code = "from src.sizes import answer\n" + MODEL + "        self.found = answer\n"
    files = {"pyproject.toml": "", "src/sizes.py": "answer = 5\n", "src/app/README.md": "", "src/app/gpt.py": code}
    assert built(files, "src/app/gpt.py:Model").found == 5


def test_annotations_may_name_what_is_missing() -> None:
    code = MODEL.replace("self, config", "self, config: gone.Config | None")
    assert built("import no_such_package as gone\n" + code) is not None


def test_an_import_that_takes_too_long() -> None:
    code = "import time\ndef wait():\n    while True:\n        time.sleep(1)\ntoken = wait()\n"
    with pytest.raises(UserError) as raised:
        taken(code + MODEL.replace("n_embd", "n_embd + token"), import_seconds=1)
    assert_in(str(raised.value), "subject.import_seconds=1", "file.py, line 5: token = wait()")


def test_what_a_file_does_to_its_process_is_undone() -> None:
    arguments, path, stdin = list(sys.argv), list(sys.meta_path), sys.stdin
    taken("import sys\nsys.argv.append('x')\nseen = sys.argv\n" + MODEL.replace("n_embd", "n_embd + len(seen)"))
    assert (sys.argv, sys.meta_path, sys.stdin) == (arguments, path, stdin)


PROJECT = {
    "src/app/model/gpt.py": "from {block} import block\n" + MODEL + "        self.found = block()\n",
    "src/app/model/parts/block.py": "import no_such_package\nfrom ..sizes import *\nfor i in range(10**12): pass\n"
    "def block():\n    return answer\n",
    "src/app/model/sizes.py": "answer = 5\nopen('input.txt')\n",
    "src/app/model/parts/__init__.py": "from .training import train\n",
    "src/config.py": "",
    "README.md": "the root of the project",
}


@pytest.mark.parametrize(
    "inits", [(), ("src/app/model/__init__.py", "src/app/__init__.py")], ids=["namespace", "regular"]
)
@pytest.mark.parametrize("block", [".parts.block", "app.model.parts.block", "src.app.model.parts.block"])
@pytest.mark.parametrize("target", ["src/app/model/gpt.py", "src.app.model.gpt", "app.model.gpt"])
def test_siblings_are_found_and_treated_the_same_way(inits: tuple[str, ...], block: str, target: str) -> None:
    files = {name: code.replace("{block}", block) for name, code in PROJECT.items()} | dict.fromkeys(inits, "import x")
    assert built(files, f"{target}:Model").found == 5
    assert built(files, f"{target}:Model").found == 5  # imported again


def test_a_library_does_not_get_a_sibling_of_its_name() -> None:
    files = {"pkg/__init__.py": "", "pkg/random.py": "1 / 0", "pkg/file.py": "import random\n" + MODEL}
    found = built(files | {"pkg/file.py": files["pkg/file.py"] + "        self.found = random\n"}, "pkg/file.py:Model")
    assert not Path(found.found.__file__).is_relative_to(Path.cwd())


def test_the_last_subject_is_forgotten() -> None:
    code = "import sibling\n" + MODEL + "        self.found = sibling.n\n"
    assert built({"a/file.py": code, "a/sibling.py": "n = 1\n"}, "a/file.py:Model").found == 1
    assert built({"b/file.py": code, "b/sibling.py": "n = 2\n"}, "b/file.py:Model").found == 2


def test_modules_that_import_each_other() -> None:
    files = {"one.py": "from two import b\na = b + 1\n" + MODEL + "        self.found = a\n"}
    files["two.py"] = "from one import c\nb = c + 1\n"
    files["one.py"] = "c = 1\n" + files["one.py"]
    assert built(files, "one.py:Model").found == 3
