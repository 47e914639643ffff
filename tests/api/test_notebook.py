"""The Python API in a real Jupyter kernel, and the example notebook."""

import base64
import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import REPO, assert_in

EXAMPLE = REPO / "gpt2x" / "example.ipynb"


@pytest.fixture
def execute(tmp_path: Path, launch: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the cells of a notebook in a new kernel, in an empty folder; returns the outputs of each cell."""
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):  # what Jupyter writes beside the notebook
        monkeypatch.setenv(name, str(tmp_path / name))
    paths = [str(REPO), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))

    def run(notebook: Any) -> list[list[Any]]:
        NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(launch)}}).execute()
        return [cell["outputs"] for cell in notebook.cells]

    return run


def test_the_example_runs(execute: Any, launch: Path) -> None:
    notebook = nbformat.read(EXAMPLE, as_version=4)
    assert len(notebook.cells) == 3
    assert [cell["outputs"] for cell in notebook.cells] == [[], [], []]
    generated, validated, evaluated = execute(notebook)
    for outputs in (generated, validated, evaluated):  # one result each: nothing is printed, not even a warning
        assert [output["output_type"] for output in outputs] == ["execute_result"]
    assert_in(generated[0]["data"]["text/html"], "completion", "To be, or")
    html = validated[0]["data"]["text/html"]
    assert_in(html, "FAIL", "h.1.mlp.act", "exact (erf) GELU instead of tanh", "<img")
    picture = base64.b64decode(html.partition("data:image/png;base64,")[2].partition('"')[0])
    assert picture.startswith(b"\x89PNG")
    assert_in(validated[0]["data"]["text/plain"], "FAIL", "h.1.mlp.act", "exact (erf) GELU")
    assert_in(evaluated[0]["data"]["text/html"], "perplexity", "bits_per_byte")
    assert list(launch.iterdir()) == []


MINE = """
import sys
sys.path.insert(0, {subjects!r})
import plain

class Mine(plain.GPT2):
    def forward(self, ids):
        print("called")
        return super().forward(ids)

import gpt2x
"""


def test_a_class_that_a_cell_defines(execute: Any) -> None:
    setup = MINE.format(subjects=str(REPO / "tests" / "subjects"))
    cells = [setup, "gpt2x.validate(Mine, stages=['layers', 'logits'])", "gpt2x.validate('x.py:Mine')"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.cells[2]["metadata"]["tags"] = ["raises-exception"]
    _, validated, refused = execute(notebook)
    results = [output for output in validated if output["output_type"] == "execute_result"]
    assert_in(results[0]["data"]["text/html"], "PASS", "Mine computes what transformers")
    assert [output["ename"] for output in refused] == ["UserError"]
