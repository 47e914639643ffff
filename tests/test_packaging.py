"""pyproject.toml declares every package that gpt2x and its tests import, with a lower bound."""

import os
import re
import sys
import tomllib
from importlib.metadata import version

import pytest

from tests.conftest import REPO
from tests.lower_bounds import PYPROJECT, lower_bounds
from tests.test_layers import imports

PROJECT = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
# where it is not the name of the package
DISTRIBUTIONS = {
    "hydra": "hydra-core",
    "hydra_plugins": "hydra-submitit-launcher",
    "mlflow": "mlflow-skinny",
    "yaml": "pyyaml",
}
OPTIONAL = {  # modules that are imported only if the user asks for what they do, and the extra that they belong to
    "gpt2x/benchmark/engines/ctranslate2.py": "bench",
    "gpt2x/benchmark/engines/llamacpp.py": "bench",
    "gpt2x/benchmark/engines/openvino.py": "bench",
    "gpt2x/checkpoints/exporting/gguf.py": "formats",
    "gpt2x/checkpoints/exporting/onnx.py": "onnx",
    "gpt2x/checkpoints/formats/flax.py": "formats",
    "gpt2x/checkpoints/formats/gguf.py": "formats",
    "gpt2x/checkpoints/formats/keras.py": "formats",
    "gpt2x/cli/search.py": "optuna",
    "gpt2x/cli/slurm_states.py": "slurm",
    "gpt2x/cli/submitit_launchers.py": "slurm",
    "gpt2x/llamacpp.py": "bench",
    "gpt2x/parity/conversion/onnx.py": "onnx",
    "gpt2x/parity/conversion/readers.py": "formats",
    "gpt2x/runs/tracking.py": "mlflow",
}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=]", requirement)[0] for requirement in requirements}


def undeclared(source: str, requirements: list[str]) -> set[str]:
    """The distributions that `source` imports (in functions and for type checkers too) and that are not required."""
    packages = {name.partition(".")[0] for name in imports(source, typing=True)}
    packages -= {*sys.stdlib_module_names, "_typeshed"}  # type checkers contain _typeshed
    packages -= {"gpt2x", "tests", "plain", "styles"}  # the last two are in tests/subjects
    return {DISTRIBUTIONS.get(package, package) for package in packages} - names(requirements)


@pytest.mark.parametrize("file", sorted(path.relative_to(REPO).as_posix() for path in REPO.glob("gpt2x/**/*.py")))
def test_what_gpt2x_imports_is_declared(file: str) -> None:
    requirements = PROJECT["dependencies"] + EXTRAS.get(OPTIONAL.get(file), [])
    assert undeclared((REPO / file).read_text(encoding="utf-8"), requirements) == set()


@pytest.mark.parametrize("file", sorted(path.relative_to(REPO).as_posix() for path in REPO.glob("tests/**/*.py")))
def test_what_tests_import_is_declared(file: str) -> None:
    requirements = sum(EXTRAS.values(), start=PROJECT["dependencies"])
    assert undeclared((REPO / file).read_text(encoding="utf-8"), requirements) == set()


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ("def f():\n    import openvino.passes", {"openvino"}),
        ("from scipy.stats import chi2", {"scipy"}),
        ("if TYPE_CHECKING:\n    import PIL", {"PIL"}),
        ("import json, torch, yaml\nfrom hydra.core import utils\nfrom gpt2x import errors", set()),
    ],
)
def test_an_undeclared_import_is_found(source: str, missing: set[str]) -> None:
    assert undeclared(source, PROJECT["dependencies"]) == missing


def test_modules_of_extras_exist() -> None:
    assert [file for file in OPTIONAL if not (REPO / file).is_file()] == []


def test_the_extra_of_tests_contains_every_other_extra() -> None:
    (contained,) = [requirement for requirement in EXTRAS["test"] if requirement.startswith("gpt2x[")]
    assert contained == f"gpt2x[{','.join(sorted(set(EXTRAS) - {'test'}))}]"


def test_every_requirement_has_a_lower_bound() -> None:
    requirements = sum(EXTRAS.values(), start=PROJECT["dependencies"])
    assert lower_bounds(PYPROJECT.read_text(encoding="utf-8")).keys() == names(requirements) - {"gpt2x"}


@pytest.mark.parametrize(
    "requirement", ["torch", "torch<3", "torch==2.9", "torch>2.9", "torch>=2.9; sys_platform == 'linux'"]
)
def test_a_requirement_without_a_lower_bound_is_found(requirement: str) -> None:
    pyproject = f'[project]\nname = "gpt2x"\ndependencies = ["{requirement}"]\n[project.optional-dependencies]\n'
    with pytest.raises(ValueError, match="torch"):
        lower_bounds(pyproject)


@pytest.mark.skipif(
    not os.environ.get("CI"), reason="outside CI, tests of an engine that is not installed are left out"
)
def test_in_ci_every_declared_package_is_installed() -> None:
    for name in lower_bounds(PYPROJECT.read_text(encoding="utf-8")):
        assert version(name)
