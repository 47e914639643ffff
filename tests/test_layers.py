"""Imports point one way, and starting up imports little (design.md, section 2)."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import REPO

PACKAGE = REPO / "gpt2x"
MODULES = {
    ".".join(file.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__"): file
    for file in sorted(PACKAGE.rglob("*.py"))
}
# From the bottom up: a module imports from its own room and from the layers before its own (gpt2x/README.md).
LAYERS = [
    (
        *("gpt2x", "gpt2x.errors", "gpt2x.paths", "gpt2x.memory", "gpt2x.device", "gpt2x.process", "gpt2x.shell"),
        *("gpt2x.visible", "gpt2x.llamacpp"),
    ),
    ("gpt2x.model",),
    ("gpt2x.config", "gpt2x.tokenizer", "gpt2x.prompts"),
    ("gpt2x.runs", "gpt2x.checkpoints"),
    ("gpt2x.decoding",),
    ("gpt2x.parity", "gpt2x.benchmark", "gpt2x.evaluation", "gpt2x.training"),
    ("gpt2x.reports",),
    ("gpt2x.tasks",),
    ("gpt2x.cli", "gpt2x.api"),
    ("gpt2x.__main__",),
]
# The package itself offers the functions of the Python API, which it imports when they are first used.
LAZY = {"gpt2x": ("gpt2x.api",)}
SHARED_BY_TASKS = ("gpt2x.tasks.outcome", "gpt2x.tasks.registry")
ONLY = {
    "hydra": ("gpt2x.cli", "gpt2x.config"),
    "hydra._internal": ("gpt2x.cli.hydra_app", "gpt2x.cli.loader"),
    "omegaconf": ("gpt2x.cli", "gpt2x.config"),
    "transformers": ("gpt2x.parity.reference", "gpt2x.benchmark.engines"),
    "rich": ("gpt2x.reports",),
    "xllamacpp": ("gpt2x.llamacpp",),
}


def room(module: str) -> tuple[int, str]:
    """The layer of a module and the room in it: the closest package at or above the module that has a layer."""
    while module:
        for number, rooms in enumerate(LAYERS):
            if module in rooms:
                return number, module
        module = module.rpartition(".")[0]
    raise ValueError(module)


def lies_in(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def imports(source: str, typing: bool) -> Iterator[str]:
    """What a module imports, at its top or in functions; with `typing`, what only type checkers see as well."""
    nodes = [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not typing:
            nodes += node.orelse
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)


def violations(module: str, source: str) -> list[str]:
    found = []
    layer, own = room(module)
    for name in imports(source, typing=True):
        if name.partition(".")[0] != "gpt2x" or lies_in(name, LAZY.get(module, ())):
            continue
        other_layer, other = room(name)
        if other_layer > layer:
            found.append(f"{module} imports {name}, which is above it")
        elif other_layer == layer > 0 and other != own:
            found.append(f"{module} imports {name}, which is another room of the same layer")
        uses_no_task = lies_in(module, ("gpt2x.tasks", "gpt2x.api"))
        if uses_no_task and lies_in(name, ("gpt2x.tasks",)) and name not in SHARED_BY_TASKS:
            found.append(f"{module} imports {name}, another task")
    for name in imports(source, typing=False):
        for package, allowed in ONLY.items():
            if lies_in(name, (package,)) and not lies_in(module, allowed):
                found.append(f"{module} imports {name}")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    assert violations(module, MODULES[module].read_text(encoding="utf-8")) == []


def test_every_module_has_a_layer_of_its_own() -> None:
    rooms = tuple(name for layer in LAYERS for name in layer if name != "gpt2x")
    assert [module for module in MODULES if not lies_in(module, rooms)] == ["gpt2x"]


def test_every_room_is_there() -> None:
    assert [name for layer in LAYERS for name in layer if name not in MODULES] == []


def test_imports_have_no_cycle() -> None:
    graph = {
        module: {
            name
            for name in imports(file.read_text(encoding="utf-8"), typing=False)
            if name in MODULES and name not in LAZY.get(module, ())
        }
        for module, file in MODULES.items()
    }
    assert set(TopologicalSorter(graph).static_order()) == set(MODULES)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("gpt2x.model.block", "from gpt2x.config.model import ModelConfig"),
        ("gpt2x.model.config", "from gpt2x import prompts"),
        ("gpt2x.checkpoints.load", "def f():\n    import gpt2x.runs.tables"),
        ("gpt2x.errors", "from gpt2x.model.config import GPT2Config"),
        ("gpt2x", "from gpt2x import tasks"),
        ("gpt2x.api", "from gpt2x.tasks.train import run"),
        ("gpt2x.api", "from gpt2x.cli.job import run_job"),
        ("gpt2x.api", "from omegaconf import OmegaConf"),
        ("gpt2x.tokenizer", "from gpt2x.runs import manifest"),
        ("gpt2x.tokenizer", "from gpt2x.config.model import ModelConfig"),
        ("gpt2x.parity.trace", "from gpt2x.training import rows"),
        ("gpt2x.training.rows", "from gpt2x.reports import console"),
        ("gpt2x.tasks.train", "from gpt2x.tasks import generate"),
        ("gpt2x.tasks.train", "from gpt2x.cli.main import main"),
        ("gpt2x.tasks.train", "from omegaconf import OmegaConf"),
        ("gpt2x.tasks.train", "from rich.table import Table"),
        ("gpt2x.runs.manifest", "if x:\n    from hydra.core import utils"),
        ("gpt2x.cli.main", "from hydra._internal.utils import _run_hydra"),
        ("gpt2x.tasks.validate", "from transformers import GPT2LMHeadModel"),
    ],
)
def test_wrong_imports_are_found(module: str, source: str) -> None:
    assert len(violations(module, source)) == 1


def test_imports_for_type_checkers_may_name_transformers() -> None:
    source = "if TYPE_CHECKING:\n    from transformers import GPT2LMHeadModel"
    assert violations("gpt2x.parity.reference.record", source) == []


HEAVY = ("torch", "pandas", "transformers", "tokenizers", "numpy", "rich")


@pytest.mark.parametrize(
    "code",
    ["import gpt2x", "from gpt2x.cli.main import main; sys.argv[1:] = ['--help']; main()"],
    ids=["import gpt2x", "gpt2x --help"],
)
def test_start_up_imports_little(code: str, tmp_path: Path) -> None:
    program = f"""
import sys
try:
    {code}
finally:
    print("imported:", *sorted(set({HEAVY}) & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "imported:"
    assert list(tmp_path.iterdir()) == []
