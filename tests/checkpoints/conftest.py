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


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_dir: Path) -> Path:
    """A repository with a tiny model, whose tokenizer is a tokenizer.json alone, and with files that are not wanted."""
    from gpt2x.tokenizer import load_tokenizer

    folder = tmp_path_factory.mktemp("hub") / "openai-community/gpt2"
    folder.mkdir(parents=True)
    shutil.copy(tiny_dir / "config.json", folder)
    shutil.copy(tiny_dir / "model.safetensors", folder)
    load_tokenizer(tiny_dir).backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    (folder / "README.md").write_text("a model")
    (folder / "pytorch_model.bin").write_bytes(b"0" * 1000)
    return folder
