"""What tests of task=export share: a model to export, and the command that exports it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cli, save_distinct


@pytest.fixture(scope="module")
def source(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 tokens, width 32, with all biases and norms different."""
    folder = tmp_path_factory.mktemp("source")
    save_distinct(folder, tiny_dir)
    return folder


@pytest.fixture
def export_to(gpt2x: Cli, source: Path) -> Callable[..., Any]:
    """task=export, of the source if the arguments name no other weights, with the run folder `run`."""

    def run(*args: str) -> Any:
        weights = () if any(arg.startswith("weights.path=") for arg in args) else (f"weights.path={source}",)
        return gpt2x("task=export", *weights, "hydra.run.dir=run", *args)

    return run
