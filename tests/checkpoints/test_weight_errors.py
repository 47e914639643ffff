"""Bad weights: one line on stderr that names the file and what is wrong in it, and no code of a pickle is run."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import NANO, Cli, Refused, assert_in


@pytest.fixture
def nano() -> dict[str, torch.Tensor]:
    return load_file(NANO / "model.safetensors")


@pytest.fixture
def generate(refused: Refused, tmp_path: Path) -> Callable[..., str]:
    """Saves tensors to bad.safetensors and has task=generate refuse it."""

    def run(tensors: dict[str, torch.Tensor], *args: str) -> str:
        file = tmp_path / "bad.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
        line = refused("task=generate", f"weights.path={file}", *args)
        assert str(file) in line
        return line

    return run


# Weights files


def test_weights_path_that_is_missing(refused: Refused) -> None:
    assert_in(refused("task=generate", "weights.path=none.pt"), "weights.path=none.pt", "No such file")


def test_named_model_without_weights(refused: Refused) -> None:
    assert_in(refused("task=generate", "model=gpt2"), "gpt2_weights.pt", "weights.path=FILE", "weights=auto")


def saved(file: Path, content: Any, **options: Any) -> bytes:
    torch.save(content, file, **options)
    return file.read_bytes()


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_truncated_weights(
    refused: Refused, tmp_path: Path, nano: dict[str, torch.Tensor], kind: str, share: float
) -> None:
    if kind == "safetensors":
        whole = (NANO / "model.safetensors").read_bytes()
    else:
        whole = saved(tmp_path / "whole.pt", nano, _use_new_zipfile_serialization=kind == "zip")
    file = tmp_path / ("cut.safetensors" if kind == "safetensors" else "cut.pt")
    file.write_bytes(whole[: int(len(whole) * share)])
    assert_in(refused("task=generate", f"weights.path={file}"), str(file), "truncated")


# The first two end inside an instruction of the pickle machine, the third is not one.
RUBBISH = [b"X\x0c", b"\x80\x02\x8a", bytes(range(1, 256))]


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("content", [b"Once upon a time there was a text.\n", b"{}", *RUBBISH])
def test_file_that_is_no_checkpoint(refused: Refused, tmp_path: Path, suffix: str, content: bytes) -> None:
    file = tmp_path / f"notes.{suffix}"
    file.write_bytes(content)
    wanted = "not a state dict" if suffix == "pt" else "not a safetensors file"
    assert_in(refused("task=generate", f"weights.path={file}"), str(file), wanted)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_empty_weights_file(refused: Refused, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"empty.{suffix}"
    file.touch()
    assert_in(refused("task=generate", f"weights.path={file}"), str(file), "empty")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([torch.ones(2)], ["list"]),
        (torch.ones(2), ["Tensor"]),
        ({}, ["dict"]),
        ({"step": 3}, ["'step'", "int"]),
        ({"model": {"transformer.wte.weight": torch.ones(2, 2), "step": 3}}, ["'model'", "'step'", "int"]),
        ({"model": {"transformer.wte.weight": torch.ones(2, 2)}}, ["transformer.wpe.weight"]),
        ({0: torch.ones(2)}, ["0"]),
        ({"a.weight": torch.ones(2)}, ["not a GPT-2 checkpoint", "transformer.wte.weight"]),
    ],
    ids=["list", "tensor", "empty", "number", "nested", "positions", "keys", "other"],
)
def test_pt_file_without_a_gpt2_in_it(refused: Refused, tmp_path: Path, content: Any, words: list[str]) -> None:
    file = tmp_path / "x.pt"
    torch.save(content, file)
    assert_in(refused("task=generate", f"weights.path={file}"), str(file), *words)


class Evil:
    """Runs code when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_code_in_a_pickle_is_refused_and_not_run(refused: Refused, tmp_path: Path, kind: str) -> None:
    file, mark = tmp_path / "x.pt", tmp_path / "mark"
    content = {"transformer.wte.weight": Evil(mark)}
    if kind == "pickle":
        file.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=kind == "zip")
    assert_in(refused("task=generate", f"weights.path={file}"), str(file), "refused", "code")
    assert not mark.exists()
    # It would have run:
    pickle.loads(file.read_bytes()) if kind == "pickle" else torch.load(file, weights_only=False)
    assert mark.exists()


def test_warnings_of_torch_are_not_shown(gpt2x_process: Cli, tmp_path: Path) -> None:
    file = tmp_path / "x.pt"
    file.write_bytes(pickle.dumps({"a": Evil(tmp_path / "mark")}, protocol=4))  # torch warns of this protocol
    assert_in(gpt2x_process("task=generate", f"weights.path={file}").error(), str(file))


# What is inside the weights

C_FC = "transformer.h.2.mlp.c_fc.weight"


def test_missing_tensor(generate: Callable[..., str], nano: dict[str, torch.Tensor]) -> None:
    del nano[C_FC]
    assert_in(generate(nano), C_FC, "missing", "nano")


def test_unexpected_tensor(generate: Callable[..., str], nano: dict[str, torch.Tensor]) -> None:
    nano["transformer.h.2.mlp.c_fc.scale"] = torch.ones(3)
    assert_in(generate(nano), "transformer.h.2.mlp.c_fc.scale", "unexpected", "nano")


def test_tensor_of_another_shape(generate: Callable[..., str], nano: dict[str, torch.Tensor]) -> None:
    nano[C_FC] = torch.zeros(256, 1000)
    assert_in(generate(nano), C_FC, "[256, 1000]", "[256, 1024]", "nano")


def test_transposed_tensor(generate: Callable[..., str], nano: dict[str, torch.Tensor]) -> None:
    nano[C_FC] = nano[C_FC].t()
    assert_in(generate(nano), C_FC, "[1024, 256]", "[256, 1024]", "transposed")


def test_file_of_another_size_names_the_model_that_fits(
    generate: Callable[..., str], nano: dict[str, torch.Tensor]
) -> None:
    line = generate(nano, "model=gpt2")
    assert_in(line, "transformer.", "256", "768", "gpt2 needs", "the file fits model=nano")


def test_file_with_fewer_layers_than_asked(generate: Callable[..., str], nano: dict[str, torch.Tensor]) -> None:
    fewer = {name: tensor for name, tensor in nano.items() if ".h.3." not in name}
    assert_in(generate(fewer, "model=nano"), "transformer.h.3.", "and 9 more are missing", "nano")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none(generate: Callable[..., str], nano: dict[str, torch.Tensor], value: float) -> None:
    nano[C_FC][5, 7] = value
    assert_in(generate(nano), C_FC, "1 NaN or Inf")


def test_integers_for_weights(generate: Callable[..., str], nano: dict[str, torch.Tensor]) -> None:
    nano[C_FC] = nano[C_FC].to(torch.int8)
    assert_in(generate(nano), C_FC, "int8")


def test_head_that_is_not_tied(generate: Callable[..., str], nano: dict[str, torch.Tensor]) -> None:
    nano["lm_head.weight"] = nano["transformer.wte.weight"] + 1
    assert_in(generate(nano), "lm_head.weight", "tied")


# Hugging Face directories


@pytest.mark.parametrize(
    ("key", "value"),
    [("activation_function", "relu"), ("model_type", "llama"), ("n_inner", 64), ("scale_attn_weights", False)],
)
def test_config_json_that_asks_for_another_function(
    refused: Refused, tiny_dir: Path, tmp_path: Path, key: str, value: Any
) -> None:
    folder = tmp_path / "hf"
    shutil.copytree(tiny_dir, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: value}))
    line = refused("task=generate", f"weights.path={folder}")
    assert_in(line, str(folder / "config.json"), key, repr(value))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "{"),
        ("config.json", "[]"),
        ("config.json", '{"n_embd": "wide"}'),
        ("config.json", '{"n_head": 0}'),
        ("model.safetensors.index.json", "{}"),
        ("model.safetensors.index.json", '{"weight_map": {"transformer.wte.weight": "gone.safetensors"}}'),
    ],
)
def test_broken_json_in_a_directory(refused: Refused, tiny_dir: Path, tmp_path: Path, name: str, content: str) -> None:
    folder = tmp_path / "hf"
    shutil.copytree(tiny_dir, folder)
    (folder / name).write_text(content)
    assert_in(refused("task=generate", f"weights.path={folder}"), str(folder))


def test_directory_without_weights(refused: Refused, tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    folder.mkdir()
    assert_in(refused("task=generate", f"weights.path={folder}"), str(folder), "model.safetensors")
