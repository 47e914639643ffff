"""Bad weights: one line on stderr that names the file and what is wrong in it, and no code of a pickle is run."""

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gpt2x.checkpoints import load
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


def test_a_pickle_that_declares_far_more_than_it_has(refused: Refused, tmp_path: Path) -> None:
    whole = saved(tmp_path / "x.pt", {"transformer.wte.weight": torch.zeros(3)}, _use_new_zipfile_serialization=False)
    numbers = b"\x8a\x07" + (10**15).to_bytes(7, "little")
    changed = re.sub(rb"(cpuq.)K\x03", lambda found: found[1] + numbers, whole, flags=re.DOTALL)
    assert len(changed) == len(whole) + 7
    (tmp_path / "x.pt").write_bytes(changed)
    assert_in(refused("task=generate", f"weights.path={tmp_path / 'x.pt'}"), "x.pt: truncated")


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
    assert_in(generate(nano), C_FC, "holds NaN or Inf: 1 of 262,144 values, the first at [5, 7]")


@pytest.mark.parametrize(("task", "value"), [("generate", 1.5e38), ("evaluate", 1.2e38)])
def test_a_value_that_makes_the_logits_nan_is_named(
    gpt2x: Cli, nano: dict[str, torch.Tensor], tmp_path: Path, launch: Path, task: str, value: float
) -> None:
    """A flipped bit makes such a value: it is finite, but products with it are not."""
    nano = {name: tensor.float() for name, tensor in nano.items()}
    nano["transformer.h.1.mlp.c_fc.weight"][5] = value
    save_file(nano, tmp_path / "bad.safetensors")
    (launch / "text.txt").write_text("To be, or not to be")
    texts = ["task.data=text.txt"] if task == "evaluate" else ["decode.max_new_tokens=2"]
    weights = (f"weights.path={tmp_path / 'bad.safetensors'}", f"weights.tokenizer={NANO}")
    result = gpt2x(f"task={task}", "model=nano", *weights, *texts)
    assert result.code == 2
    note, error = result.err.splitlines()
    words = f"transformer.h.1.mlp.c_fc.weight holds a value of {value:.2g}, far beyond the weights of GPT-2"
    assert_in(note, "gpt2x: note: ", words, "the file may be damaged")
    assert_in(error, "gpt2x: error: ", "the logits of nano are not finite", words, "the file may be damaged")


def test_a_value_that_is_too_large_is_noted(gpt2x: Cli, nano: dict[str, torch.Tensor], tmp_path: Path) -> None:
    nano = {name: tensor.float() for name, tensor in nano.items()}
    nano["transformer.h.2.ln_1.bias"][3] = -4e8
    nano["transformer.wpe.weight"][1, 1] = 2e5
    save_file(nano, tmp_path / "bad.safetensors")
    result = gpt2x("task=inspect", f"weights.path={tmp_path / 'bad.safetensors'}", "model=nano")
    assert result.code == 0
    assert_in(result.out, "note: transformer.h.2.ln_1.bias holds a value of 4e+08", "(2 tensors have such values)")


def test_files_that_change_while_they_are_read(
    gpt2x: Cli, tmp_path: Path, launch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(NANO, tmp_path / "nano")
    read = load.read_contents

    def read_and_change(path: Path) -> Any:
        contents = read(path)
        os.utime(path / "model.safetensors")
        return contents

    monkeypatch.setattr(load, "read_contents", read_and_change)
    result = gpt2x("task=generate", f"weights.path={tmp_path / 'nano'}")
    assert_in(result.error(), str(tmp_path / "nano"), "changed while they were read")


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
