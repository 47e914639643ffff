"""Bad input: one line on stderr that names it, exit code 2, no traceback, nothing half-written; a bug stays a bug."""

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

from tests.conftest import NANO, Cli

Refused = Callable[..., str]


@pytest.fixture
def refused(gpt2x: Cli, launch: Path) -> Refused:
    """Runs `gpt2x ARGS`, which must fail on the input and leave the launch directory empty; returns the line."""

    def run(*args: str) -> str:
        line = gpt2x(*args).error()
        assert list(launch.iterdir()) == []
        return line

    return run


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


def assert_in(line: str, *words: str) -> None:
    assert [word for word in words if word not in line] == [], line


# The command line


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["task=genrate"], ["task=genrate", "validate", "did you mean 'generate'?"]),
        (["model=gpt2-midium"], ["model=gpt2-midium", "nano", "did you mean 'gpt2-medium'?"]),
        (["weights=locl"], ["weights=locl", "random", "did you mean 'local'?"]),
        (["decode=greddy"], ["decode=greddy", "sample", "did you mean 'greedy'?"]),
        (["device=cudda"], ["device=cudda", "did you mean 'cuda'?"]),
        (["dtype=float33"], ["dtype=float33", "bfloat16", "did you mean 'float32'?"]),
        (["top_p=0.9"], ["top_p", "did you mean 'decode.top_p'?"]),
        (["decod.top_p=0.9"], ["decod.top_p", "did you mean 'decode.top_p'?"]),
        (["+top_p=0.9"], ["top_p", "did you mean 'decode.top_p'?"]),
        (["++decode.topp=0.9"], ["decode.topp", "did you mean 'decode.top_p'?"]),
        (["decode.max_new_tokens=abc"], ["decode.max_new_tokens", "'abc'"]),
        (["seed=x"], ["seed", "'x'"]),
        (["seed=${nowhere}"], ["seed", "nowhere"]),
        (["decode=null"], ["decode"]),
        (["--foo"], ["--foo"]),
        (["task=generate", "=3"], ["=3"]),
        (["prompt=5"], ["prompt=5", "'prompt=\"5\"'"]),
        (['prompt="a'], ['prompt="a', "quotes"]),
        (["prompt=a,b"], ["prompt=a,b"]),
        (["prompt=a", "prompts_file=b.txt"], ["prompt and prompts_file"]),
        (["generate"], ["did you mean 'task=generate'?"]),
        (["~prompt"], ["~prompt"]),
        (["task.name=foo"], ["task=foo", "validate"]),
        (["-m", "+top_p=0.1,0.9"], ["top_p", "did you mean 'decode.top_p'?"]),
        (["task=train", "train.data=x", "train.beta2=1"], ["train.beta2=1", "below 1"]),
        (["weights.seed=99999999999999999999999"], ["weights.seed", "2**63"]),
        (["weights=auto", "model=nano", "weights.revision=abc"], ["weights.revision=abc", "nano"]),
        (["hydra.run.dir=/proc/nowhere"], ["/proc/nowhere", "hydra.run.dir"]),
        ([f"weights.path={'x' * 300}"], ["weights.path=xxx", "too long"]),
        (["weights=random"], ["model=auto", "model=nano"]),
        (["model=nano", "weights=random", "weights.path=x.pt"], ["weights.path", "weights=random"]),
    ],
    ids=lambda value: " ".join(value[:1]) if isinstance(value, list) else None,
)
def test_bad_command_line(refused: Refused, args: list[str], words: list[str]) -> None:
    assert_in(refused(*args), *words)


def test_a_process_exits_with_the_code(gpt2x_process: Cli, launch: Path) -> None:
    assert_in(gpt2x_process("task=genrate").error(), "task=genrate")
    assert list(launch.iterdir()) == []


def test_device_that_is_absent(refused: Refused) -> None:
    assert not torch.cuda.is_available()  # tests/conftest.py hides it
    assert_in(refused("task=generate", "device=cuda"), "device=cuda", "device=cpu")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["decode.temperature=0"], ["decode.temperature=0", "decode.greedy=true"]),
        (["decode.temperature=-1"], ["decode.temperature=-1"]),
        (["decode.temperature=nan"], ["decode.temperature=nan"]),
        (["decode.top_p=0"], ["decode.top_p=0"]),
        (["decode.top_p=1.5"], ["decode.top_p=1.5", "at most 1"]),
        (["decode.top_p=nan"], ["decode.top_p=nan"]),
        (["decode.top_k=0"], ["decode.top_k=0", "at least 1"]),
        (["decode.max_new_tokens=0"], ["decode.max_new_tokens=0", "at least 1"]),
        (["decode.num_samples=0"], ["decode.num_samples=0", "at least 1"]),
        (["batch_size=0"], ["batch_size=0", "at least 1"]),
        (["seed=-1"], ["seed=-1", "at least 0"]),
        (["decode=greedy", "decode.top_p=0.9"], ["decode.greedy=true", "decode.top_p=0.9"]),
        (["decode=greedy", "decode.temperature=0.5"], ["decode.greedy=true", "decode.temperature=0.5"]),
        (["decode=greedy", "decode.num_samples=2"], ["decode.greedy=true", "decode.num_samples=2"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_decoding(refused: Refused, args: list[str], words: list[str]) -> None:
    assert_in(refused("task=generate", *args), *words)


# Prompts


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (['prompt=""'], ["prompt", "empty"]),
        (['prompt=["a",""]'], ["prompt", "entry 2", "empty"]),
        (["prompt=[]"], ["prompt", "no prompt"]),
        (["prompt=null"], ["prompt", "no prompt"]),
        ([f'prompt="{"!?" * 300}"'], ["prompt", "600 tokens", "context of 256"]),
        (['prompt="!?"', "decode.max_new_tokens=255"], ["2 tokens", "context of 256", "decode.max_new_tokens=254"]),
        ([f'prompt=["a","{"!?" * 300}"]'], ["prompt '1'", "600 tokens"]),
    ],
    ids=["empty", "empty in a list", "empty list", "null", "too long", "too long with new tokens", "second too long"],
)
def test_bad_prompt(refused: Refused, args: list[str], words: list[str]) -> None:
    assert_in(refused("task=generate", *args), *words)


def test_longest_prompt_that_fits(gpt2x: Cli) -> None:
    assert gpt2x("task=generate", 'prompt="!?"', "decode.max_new_tokens=254").code == 0


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("p.txt", b"good\n\xff\xfe bad\n", ["not UTF-8", "byte 5"]),
        ("p.txt", b"", ["no prompt"]),
        ("p.txt", b"\n \n", ["no prompt"]),
        ("p.csv", b"text,id\na,1\n", ["column", "prompt", "text", "id"]),
        ("p.csv", b"prompt,id\na,1\nb,1\n", ["two prompts", "'1'"]),
        ("p.csv", b"prompt,id\na,1\n,2\n", ["entry 2"]),
        ("p.csv", b'prompt\n"a\n', ["CSV"]),
        ("p.csv", b"", ["column", "prompt"]),
        ("p.csv", b"prompt\n", ["no prompt"]),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": \n', ["line 2", "JSON"]),
        ("p.jsonl", b'["a"]\n', ["line 1", "object"]),
        ("p.jsonl", b'{"text": "a"}\n', ["entry 1", "prompt"]),
        ("p.jsonl", b'{"prompt": 5}\n', ["entry 1", "prompt"]),
        ("p.jsonl", b'{"prompt": "half an emoji: \\ud83d"}\n', ["entry 1"]),
        ("p.jsonl", b'{"prompt": "a", "id": "x"}\n{"prompt": "b", "id": "x"}\n', ["two prompts", "'x'"]),
        ("p.jsonl", b"", ["no prompt"]),
        ("p.yaml", b"- a\n", [".txt, .jsonl or .csv"]),
    ],
)
def test_bad_prompts_file(refused: Refused, tmp_path: Path, name: str, content: bytes, words: list[str]) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    assert_in(refused("task=generate", f"prompts_file={file}"), str(file), *words)


def test_prompts_file_that_is_missing(refused: Refused) -> None:
    assert_in(refused("task=generate", "prompts_file=none.txt"), "prompts_file=none.txt", "No such file")


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
        ({"model": {"transformer.wte.weight": torch.ones(2, 2)}}, ["'model'", "dict"]),
        ({0: torch.ones(2)}, ["0"]),
        ({"a.weight": torch.ones(2)}, ["not a GPT-2 checkpoint", "transformer.wte.weight"]),
    ],
    ids=["list", "tensor", "empty", "number", "nested", "keys", "other"],
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
    assert_in(generate(fewer, "model=nano"), "transformer.h.3.", "missing", "11 more", "nano")


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


# Training data


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"fine\n\xff", ["not UTF-8", "byte 5"]),
        (b"hi", ["training split has 1 tokens"]),
        (b"", ["training split has 0 tokens"]),
    ],
    ids=["latin-1", "short", "empty"],
)
def test_bad_training_data(refused: Refused, tmp_path: Path, content: bytes, words: list[str]) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(content)
    assert_in(refused("task=train", f"train.data={file}", f"weights.path={NANO}"), "train.data", *words)


def test_training_data_too_plain_for_a_vocabulary(refused: Refused, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("ha " * 1000)
    assert_in(refused("task=train", f"train.data={file}", "model=nano"), "train.data", "model.vocab_size=1024")


def test_training_data_that_is_missing(refused: Refused) -> None:
    assert_in(refused("task=train", "train.data=none.txt", "model=nano"), "train.data=none.txt", "No such file")
    assert_in(refused("task=train", "model=nano"), "train.data=FILE")


# The run folder


def test_output_folder_that_cannot_be_made(refused: Refused, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    line = refused("task=generate", f"hydra.run.dir={file}/sub")
    assert_in(line, str(file), "hydra.run.dir=DIR")
    assert file.read_text() == "mine"


@pytest.mark.parametrize("name", ["generations.csv", "timing.csv", "manifest.json"])
def test_full_disk_leaves_nothing(gpt2x: Cli, launch: Path, name: str) -> None:
    folder = launch / "out"
    folder.mkdir()
    (folder / f".{name}.tmp").symlink_to("/dev/full")  # where the file is written before it is moved
    line = gpt2x("task=generate", "decode.max_new_tokens=1", f"hydra.run.dir={folder}").error()
    assert_in(line, name, "No space left on device")
    assert [file for file in launch.rglob("*") if not file.is_dir()] == []


@pytest.mark.parametrize("folder", ["sub", "."])
def test_a_failure_keeps_what_was_in_the_folder_before(gpt2x: Cli, launch: Path, folder: str) -> None:
    (launch / "sub").mkdir()
    files = [launch / "sub" / "thesis.txt", launch / "thesis.txt"]
    for file in files:
        file.write_text("mine")
    assert_in(gpt2x("task=generate", 'prompt=""', f"hydra.run.dir={folder}").error(), "empty")
    assert sorted(file for file in launch.rglob("*") if file.is_file()) == files


def test_a_sweep_that_cannot_start_leaves_nothing(refused: Refused) -> None:
    assert_in(refused("-m", "task=generate", "decode.top_k=5,abc"), "decode.top_k", "'abc'")


# What is not the user's


def test_a_bug_keeps_its_traceback(gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(config: Any, run_dir: Path) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("gpt2x.tasks.generate.run", bug)
    with pytest.raises(RuntimeError, match="a bug"):
        gpt2x("task=generate")
    assert list(launch.iterdir()) == []


def test_an_interrupt_exits_with_130(gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(config: Any, run_dir: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gpt2x.tasks.generate.run", interrupt)
    assert gpt2x("task=generate").code == 130
    assert list(launch.iterdir()) == []
