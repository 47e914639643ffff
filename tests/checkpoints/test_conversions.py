"""Every format that gpt2x reads to every other and back: the same weights, and the same bytes."""

from pathlib import Path

import pytest
import torch

from gpt2x.checkpoints.exporting import exporter_for
from gpt2x.checkpoints.load import Checkpoint, load_checkpoint
from gpt2x.config.model import ModelConfig
from gpt2x.config.weights import WeightsConfig
from gpt2x.parity.conversion.own import Gpt2x
from tests.conftest import save_distinct

pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def source(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """300 tokens, width 32, with all biases and norms different."""
    folder = tmp_path_factory.mktemp("source")
    save_distinct(folder, tiny_dir)
    return load(folder)


def load(path: Path) -> Checkpoint:
    weights = WeightsConfig("local", str(path))
    return load_checkpoint(ModelConfig("auto"), weights, torch.float32, torch.device("cpu"), shared=False)


def convert(checkpoint: Checkpoint, format: str, dtype: str, folder: Path) -> Path:
    """The path of the file with the weights."""
    folder.mkdir()
    exporter = exporter_for(format, dtype)
    exporter.write(folder, checkpoint.model, checkpoint.tokenizer, dtype)
    return folder / exporter.weights


@pytest.mark.parametrize("there", Gpt2x.formats)
@pytest.mark.parametrize("here", Gpt2x.formats)
def test_every_format_to_every_other_and_back(source: Checkpoint, tmp_path: Path, here: str, there: str) -> None:
    first = convert(source, here, "float32", tmp_path / "first")
    between = convert(load(first), there, "float32", tmp_path / "between")
    found = load(between)
    assert found.model.config == source.model.config
    for name, tensor in source.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], tensor), name
    last = convert(found, here, "float32", tmp_path / "last")
    for file in first.parent.iterdir():
        assert (last.parent / file.name).read_bytes() == file.read_bytes(), file.name


@pytest.mark.parametrize(
    ("format", "dtype"), [("llmc", "bfloat16"), ("gguf", "float16"), ("gguf", "bfloat16"), ("gguf", "int8")]
)
def test_what_was_rounded_once_is_not_rounded_again(
    source: Checkpoint, tmp_path: Path, format: str, dtype: str
) -> None:
    first = convert(source, format, dtype, tmp_path / "first")
    between = convert(load(first), "hf", "float32", tmp_path / "between")
    last = convert(load(between.parent), format, dtype, tmp_path / "last")
    assert last.read_bytes() == first.read_bytes()
