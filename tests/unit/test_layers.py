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
# From the bottom up: a module imports from its own layer and those before it.
LAYERS = [
    {"gpt2x", "gpt2x.errors", "gpt2x.paths", "gpt2x.schema", "gpt2x.memory"},
    {"gpt2x.model.config", "gpt2x.linear", "gpt2x.cache"},
    {"gpt2x.model"},
    {"gpt2x.reference", "gpt2x.subject", "gpt2x.checkpoints", "gpt2x.tokenizer"},
    {
        *("gpt2x.parity", "gpt2x.decoding", "gpt2x.benchmark"),
        *("gpt2x.results", "gpt2x.journal", "gpt2x.runtime", "gpt2x.prompts", "gpt2x.console"),
    },
    {"gpt2x.tasks"},
    {"gpt2x.cli"},
    {"gpt2x.__main__"},
]
ONLY = {
    "hydra": {"gpt2x.cli", "gpt2x.schema"},
    "omegaconf": {"gpt2x.cli", "gpt2x.schema"},
    "transformers": {
        "gpt2x.reference",
        "gpt2x.benchmark.engines.transformers",
        "gpt2x.benchmark.engines.openvino",
    },
}


def layer(module: str) -> int:
    """Of the module, or of the closest package above it that has one."""
    while module:
        for number, names in enumerate(LAYERS):
            if module in names:
                return number
        module = module.rpartition(".")[0]
    raise ValueError(module)


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
    for name in imports(source, typing=True):
        if name.partition(".")[0] != "gpt2x":
            continue
        if layer(name) > layer(module):
            found.append(f"{module} imports {name}, which is above it")
        if module.startswith("gpt2x.model") and not name.startswith(("gpt2x.model", "gpt2x.linear", "gpt2x.cache")):
            found.append(f"{module} imports {name}, which is not of the model")
        if module.startswith("gpt2x.tasks.") and name.startswith("gpt2x.tasks."):
            found.append(f"{module} imports {name}, another task")
    for name in imports(source, typing=False):
        if module not in ONLY.get(name.partition(".")[0], {module}):
            found.append(f"{module} imports {name}")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    assert violations(module, MODULES[module].read_text(encoding="utf-8")) == []


def test_every_module_has_a_layer_of_its_own() -> None:
    named = set().union(*LAYERS)
    homeless = [m for m in MODULES if not any(m == name or m.startswith(f"{name}.") for name in named - {"gpt2x"})]
    assert homeless == ["gpt2x"]


def test_imports_have_no_cycle() -> None:
    graph = {
        module: {name for name in imports(file.read_text(encoding="utf-8"), typing=False) if name in MODULES}
        for module, file in MODULES.items()
    }
    assert set(TopologicalSorter(graph).static_order()) == set(MODULES)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("gpt2x.model.block", "from gpt2x.errors import UserError"),
        ("gpt2x.model.config", "from gpt2x.model import gpt2"),
        ("gpt2x.checkpoints.load", "def f():\n    import gpt2x.results"),
        ("gpt2x.errors", "from gpt2x.model.config import GPT2Config"),
        ("gpt2x.tokenizer", "from gpt2x import runtime"),
        ("gpt2x.tasks.train", "from gpt2x.tasks import generate"),
        ("gpt2x.tasks.train", "from gpt2x.cli import main"),
        ("gpt2x.tasks.train", "from omegaconf import OmegaConf"),
        ("gpt2x.runtime", "if x:\n    from hydra.core import utils"),
        ("gpt2x.tasks.validate", "from transformers import GPT2LMHeadModel"),
    ],
)
def test_wrong_imports_are_found(module: str, source: str) -> None:
    assert len(violations(module, source)) == 1


def test_imports_for_type_checkers_may_name_transformers() -> None:
    source = "if TYPE_CHECKING:\n    from transformers import GPT2LMHeadModel"
    assert violations("gpt2x.parity.record", source) == []


HEAVY = ("torch", "pandas", "transformers", "tokenizers", "numpy")


@pytest.mark.parametrize(
    "code",
    ["import gpt2x", "from gpt2x.cli import main; sys.argv[1:] = ['--help']; main()"],
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
