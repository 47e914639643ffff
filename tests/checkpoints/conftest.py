"""What tests of checkpoints share: a model to write, and a folder to write it into."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import tiny_hf


@pytest.fixture(scope="module")
def hf() -> Any:
    """A Hugging Face model whose tensors are all different, biases and norms too."""
    model = tiny_hf()
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=noise))
    return model


@pytest.fixture
def folder(tiny_dir: Path, tmp_path: Path) -> Path:
    """A directory with tiny_dir's tokenizer, and no config.json."""
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(tiny_dir / name, tmp_path)
    return tmp_path
