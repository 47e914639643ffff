"""Reading weights: the formats and names that GPT-2 checkpoints come in, against the Hugging Face model they are of."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gpt2x.checkpoints import hub
from gpt2x.checkpoints import locate as find
from gpt2x.checkpoints.contents import Contents
from gpt2x.checkpoints.exporting.hf import save_checkpoint
from gpt2x.checkpoints.formats import FORMATS, read_contents
from gpt2x.checkpoints.formats.files import FILES
from gpt2x.checkpoints.load import Checkpoint, load_checkpoint
from gpt2x.checkpoints.locate import find_weights
from gpt2x.config.model import ModelConfig
from gpt2x.config.weights import WeightsConfig
from gpt2x.errors import UserError
from gpt2x.paths import bundled
from tests.conftest import tiny_hf

CONV1D = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
State = dict[str, Tensor]


def load(path: Path, dtype: torch.dtype = torch.float32, n_head: int | None = 4) -> Checkpoint:
    model = ModelConfig(name="auto", n_head=n_head)
    return load_checkpoint(model, WeightsConfig(source="local", path=str(path)), dtype, torch.device("cpu"))


def save(state: State, file: Path, legacy: bool = False) -> None:
    if file.suffix == ".safetensors":
        save_file({name: tensor.clone() for name, tensor in state.items()}, file, {"format": "pt"})
    else:
        torch.save(state, file, _use_new_zipfile_serialization=not legacy)


def assert_same_weights(ours: torch.nn.Module, hf: Any, dtype: torch.dtype = torch.float32) -> None:
    theirs = dict(hf.named_parameters())
    assert dict(ours.named_parameters()).keys() == theirs.keys()
    for name, parameter in ours.named_parameters():
        expected = theirs[name].detach().to(dtype)
        expected = expected.t() if name.endswith(CONV1D) else expected
        assert parameter.dtype == dtype
        assert torch.equal(parameter, expected), name


def with_buffers(state: State) -> State:
    causal = torch.ones(1, 1, 64, 64).tril()
    return state | {
        name: buffer
        for i in range(2)
        for name, buffer in (
            (f"transformer.h.{i}.attn.bias", causal),
            (f"transformer.h.{i}.attn.masked_bias", torch.tensor(-1e4)),
        )
    }


def without_head(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if name != "lm_head.weight"}


def without_prefix(state: State) -> State:
    return {name.removeprefix("transformer."): tensor for name, tensor in state.items()}


NAMINGS: dict[str, Callable[[State], State]] = {
    "as transformers names them": lambda state: state,
    "without the head": without_head,
    "with the buffers of old files": with_buffers,
    "without the prefix": without_prefix,
    "as the hub's gpt2": lambda state: without_prefix(without_head(with_buffers(state))),
}


@pytest.mark.parametrize("file", ["model.pt", "legacy.pt", "model.bin", "model.safetensors"])
@pytest.mark.parametrize("naming", NAMINGS)
def test_formats_and_names(folder: Path, hf: Any, file: str, naming: str) -> None:
    save(NAMINGS[naming](hf.state_dict()), folder / file, legacy=file == "legacy.pt")
    checkpoint = load(folder / file)
    assert_same_weights(checkpoint.model, hf)
    assert checkpoint.model.lm_head.weight is checkpoint.model.transformer.wte.weight
    assert (checkpoint.name, checkpoint.weights) == ("custom", str(folder / file))


def test_loaded_model_computes_what_transformers_computes(folder: Path, hf: Any) -> None:
    torch.save(hf.state_dict(), folder / "model.pt")
    ids = torch.randint(300, (2, 64), generator=torch.Generator().manual_seed(0))
    ours = load(folder / "model.pt", torch.float64).model(ids)
    theirs = tiny_hf().double()
    theirs.load_state_dict(hf.state_dict())
    assert torch.allclose(ours, theirs(ids).logits, rtol=0, atol=1e-9 * ours.abs().max().item())


@pytest.mark.parametrize("shard", ["5GB", "40KB"], ids=["whole", "sharded"])
def test_hugging_face_directory(folder: Path, hf: Any, shard: str) -> None:
    hf.save_pretrained(folder, max_shard_size=shard)
    files = list(folder.glob("*.safetensors"))
    assert (len(files) > 1) == (folder / "model.safetensors.index.json").exists() == (shard == "40KB")
    assert_same_weights(load(folder, n_head=None).model, hf)


def test_a_format_whose_package_is_missing_takes_no_other_down(
    folder: Path, hf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(hf.state_dict(), folder / "model.safetensors")
    save(hf.state_dict(), folder / "model.pt")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(UserError, match=r"model\.safetensors: .*not installed.*pip install safetensors"):
        load(folder / "model.safetensors")
    assert_same_weights(load(folder / "model.pt").model, hf)


@pytest.mark.parametrize(
    ("file", "name"), [("a.safetensors", "safetensors"), ("a.pt", "torch.save"), ("a.bin", "torch.save")]
)
def test_the_first_format_that_matches_reads_a_file(
    file: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / file).write_bytes(b"weights")
    for format in (*FORMATS, *FILES):
        monkeypatch.setattr(type(format), "read", lambda self, path: Contents(self.name, {}))
    assert read_contents(tmp_path / file).format == name
    assert len({format.name for format in (*FORMATS, *FILES)}) == len(FORMATS) + len(FILES)


def test_shard_that_is_missing(folder: Path, hf: Any) -> None:
    hf.save_pretrained(folder, max_shard_size="40KB")
    shard = max(folder.glob("*.safetensors"))
    shard.unlink()
    with pytest.raises(UserError, match=shard.name):
        load(folder)


DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("asked", [*DTYPES, torch.float64], ids=str)
@pytest.mark.parametrize("stored", DTYPES, ids=str)
def test_dtypes(folder: Path, hf: Any, stored: torch.dtype, asked: torch.dtype, suffix: str) -> None:
    file = folder / f"model.{suffix}"
    save({name: tensor.to(stored) for name, tensor in hf.state_dict().items()}, file)
    theirs = tiny_hf().to(stored)
    theirs.load_state_dict(hf.state_dict())
    assert_same_weights(load(file, asked).model, theirs, asked)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_weights_stay_in_the_mapped_file(folder: Path, hf: Any, suffix: str) -> None:
    file = folder / f"mapped.{suffix}"
    save(hf.state_dict(), file)
    model = load(file).model
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(file))]
    ranges = [[int(end, 16) for end in line[0].split("-")] for line in lines]
    outside = [
        name
        for name, parameter in model.named_parameters()
        if not any(start <= parameter.data_ptr() < end for start, end in ranges)
    ]
    assert outside == []


def test_size_is_told_from_the_shapes(folder: Path) -> None:
    """A known size needs neither config.json nor n_head."""
    nano = tiny_hf(n_layer=4, n_embd=256, n_head=4, n_positions=256, vocab_size=1024)
    torch.save(nano.state_dict(), folder / "model.pt")
    checkpoint = load(folder / "model.pt", n_head=None)
    assert (checkpoint.name, checkpoint.model.config.n_head) == ("nano", 4)


def test_state_dict_of_an_unknown_size_needs_n_head(folder: Path, hf: Any) -> None:
    torch.save(hf.state_dict(), folder / "model.pt")
    with pytest.raises(UserError, match=r"model\.n_head=N"):
        load(folder / "model.pt", n_head=None)
    with pytest.raises(UserError, match=r"model\.n_head=5"):
        load(folder / "model.pt", n_head=5)
    assert load(folder / "model.pt", n_head=8).model.config.n_head == 8


@pytest.mark.parametrize("target", ["", "model.safetensors"], ids=["directory", "file in it"])
def test_n_head_against_config_json(folder: Path, hf: Any, target: str) -> None:
    hf.save_pretrained(folder)
    with pytest.raises(UserError, match=r"model\.n_head=8: config\.json .* says 4"):
        load(folder / target, n_head=8)


def test_config_json_rules_what_shapes_do_not_tell(folder: Path) -> None:
    hf = tiny_hf(n_head=2, layer_norm_epsilon=0.1)
    hf.save_pretrained(folder)
    model = load(folder, n_head=None).model
    assert (model.config.n_head, model.config.layer_norm_epsilon) == (2, 0.1)
    ids = torch.arange(20)[None]
    assert torch.allclose(model(ids), hf(ids).logits, atol=1e-5)


def test_tokenizer_of_another_checkpoint_is_refused(tmp_path: Path, hf: Any) -> None:
    torch.save(hf.state_dict(), tmp_path / "model.pt")
    with pytest.raises(UserError, match="no tokenizer with 300 tokens"):
        load(tmp_path / "model.pt")
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(bundled("data") / "nano" / name, tmp_path)
    with pytest.raises(UserError, match="1024 tokens, more than the model's 300"):
        load(tmp_path / "model.pt")


def test_written_checkpoint_is_read_by_transformers_and_by_us(folder: Path, hf: Any, tmp_path: Path) -> None:
    from transformers import GPT2LMHeadModel

    torch.save(hf.state_dict(), folder / "model.pt")
    checkpoint = load(folder / "model.pt")
    written = tmp_path / "written"
    save_checkpoint(written, checkpoint.model, checkpoint.tokenizer, torch.float32)
    assert_same_weights(load(written, n_head=None).model, hf)
    assert_same_weights(checkpoint.model, GPT2LMHeadModel.from_pretrained(written, dtype=torch.float32))


# The cache


def test_the_same_file_is_loaded_once(folder: Path, hf: Any) -> None:
    torch.save(hf.state_dict(), folder / "model.pt")
    first = load(folder / "model.pt")
    assert load(folder / "model.pt") is first
    assert load(folder / "model.pt", torch.float64) is not first
    assert load(folder / "model.pt", n_head=8).model.config.n_head == 8


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_changed_file_is_loaded_anew(folder: Path, hf: Any, kind: str) -> None:
    file = folder / "model.safetensors"
    hf.save_pretrained(folder)
    path = file if kind == "file" else folder
    assert_same_weights(load(path).model, hf)
    other = tiny_hf(seed=1)
    save(without_head(other.state_dict()), folder / "new.safetensors")
    os.replace(folder / "new.safetensors", file)
    assert_same_weights(load(path).model, other)


# Which file is meant


@pytest.fixture
def data(launch: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes an empty file below the launch directory, where `bundled/` stands for what comes with gpt2x."""
    monkeypatch.setattr(find, "bundled", lambda folder: launch / "bundled" / folder)

    def make(name: str) -> Path:
        file = launch / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        return file

    return make


def found(name: str = "auto", **weights: Any) -> Path | None:
    path = find_weights(ModelConfig(name=name), WeightsConfig(**({"source": "local"} | weights)))
    return path and path.absolute()


# Everything that could be meant by model=gpt2, the first there is wins.
ORDER = [
    "data/gpt2_weights.safetensors",
    "data/gpt2_weights.pt",
    "data/gpt2/config.json",
    "bundled/data/gpt2_weights.safetensors",
    "bundled/data/gpt2_weights.pt",
    "bundled/data/gpt2/config.json",
]


@pytest.mark.parametrize("name", ["gpt2", "auto"])
@pytest.mark.parametrize("first", range(len(ORDER)))
def test_launch_directory_first_and_safetensors_first(data: Callable[[str], Path], first: int, name: str) -> None:
    data("bundled/data/nano/config.json")
    files = [data(file) for file in ORDER[first:]]
    expected = files[0].parent if files[0].name == "config.json" else files[0]
    assert found(name) == expected


def test_nano_is_what_auto_falls_back_to(data: Callable[[str], Path]) -> None:
    data("bundled/data/gpt2/vocab.json")  # the vocabulary alone is no model
    data("bundled/data/nano/config.json")
    data("data/gpt2-medium_weights.pt")
    assert found() == found("nano") == Path("bundled/data/nano").absolute()
    own = data("data/nano_weights.pt")
    assert found() == found("nano") == own


def test_bundled_nano_is_found_from_anywhere(launch: Path) -> None:
    assert found() == bundled("data") / "nano"


def test_named_model_without_weights_says_what_to_put_where(data: Callable[[str], Path]) -> None:
    data("bundled/data/nano/config.json")
    with pytest.raises(UserError, match=r"gpt2_weights\.safetensors or gpt2_weights\.pt .*weights\.path=FILE"):
        found("gpt2")


def test_path_wins_over_the_data_folder(data: Callable[[str], Path]) -> None:
    data(ORDER[0])
    own = data("mine.pt")
    assert found(path="mine.pt") == own
    with pytest.raises(UserError, match=r"weights\.path=none\.pt: No such file"):
        found(path="none.pt")


def test_weights_auto_asks_the_hub_last(data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(name: str, repository: str | None, revision: str | None) -> Path:
        asked.append((name, revision))
        return Path("from_the_hub")

    monkeypatch.setattr(hub, "fetch", fetch)
    data("bundled/data/nano/config.json")
    assert found("gpt2", source="auto", revision="main") == found(source="auto") == Path("from_the_hub").absolute()
    assert asked == [("gpt2", "main"), ("gpt2", None)]
    local = data(ORDER[1])
    assert found("gpt2", source="auto") == found(source="auto") == local
    assert len(asked) == 2


def test_random_weights_need_no_file(data: Callable[[str], Path]) -> None:
    data(ORDER[0])
    assert found("gpt2", source="random") is None


def test_gpt2_weights_in_the_launch_directory_are_the_default(launch: Path, tiny_dir: Path, hf: Any) -> None:
    data = launch / "data"
    shutil.copytree(tiny_dir, data, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save(hf.state_dict(), data / "gpt2_weights.pt")
    checkpoint = load_checkpoint(
        ModelConfig(name="auto"), WeightsConfig(source="local"), torch.float32, torch.device("cpu")
    )
    assert checkpoint.weights == "data/gpt2_weights.pt"
    assert_same_weights(checkpoint.model, hf)
