"""The formats of other programs, written independently of gpt2x's readers: the weights, the architecture, bad files."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
import torch
from safetensors.torch import save_file

from gpt2x.checkpoints.digest import checkpoint_digests
from gpt2x.errors import UserError
from tests.checkpoints import writers
from tests.checkpoints.test_checkpoints import assert_same_weights
from tests.checkpoints.test_resolve import load
from tests.conftest import Refused, assert_in, tiny_hf

Write = Callable[[Path, Any], None]
FORMATS: dict[str, tuple[str, Write]] = {
    "llm.c": ("model.bin", writers.write_llmc),
    "GGUF": ("model.gguf", lambda file, hf: writers.write_gguf(file, hf, "F32")),
    "Flax": ("flax_model.msgpack", writers.write_flax),
    "Keras": ("tf_model.h5", writers.write_keras),
    "OpenAI": ("model.ckpt.index", lambda file, hf: writers.write_openai(file.parent, hf)),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_weights_and_their_checksums(folder: Path, hf: Any, name: str) -> None:
    file, write = FORMATS[name]
    write(folder / file, hf)
    checkpoint = load(folder / file, n_head=4, measure=True)
    assert_same_weights(checkpoint.model, hf)
    torch.save(hf.state_dict(), folder / "hf.pt")
    own = {row.name: row.sha256 for row in load(folder / "hf.pt", n_head=4, measure=True).account.rows}
    assert {row.name: row.sha256 for row in checkpoint.account.rows} == own | {"lm_head.weight": None}


@pytest.mark.parametrize("name", ["Flax", "Keras", "OpenAI"])
def test_a_directory_of_the_format(folder: Path, hf: Any, name: str) -> None:
    file, write = FORMATS[name]
    write(folder / file, hf)
    if name != "OpenAI":
        hf.config.save_pretrained(folder)
    checkpoint = load(folder)
    assert_same_weights(checkpoint.model, hf)
    assert checkpoint.model.config.n_head == 4
    assert set(checkpoint_digests(folder)) >= {file, "vocab.json"}


@pytest.mark.parametrize("name", ["llm.c", "GGUF"])
def test_the_architecture_is_that_of_the_file(folder: Path, name: str) -> None:
    hf = tiny_hf(n_head=2, layer_norm_epsilon=1e-5)
    file, write = FORMATS[name]
    write(folder / file, hf)
    config = load(folder / file).model.config
    assert (config.n_head, config.layer_norm_epsilon) == (2, 1e-5)


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_is_cut_short_is_one_line(refused: Refused, tmp_path: Path, hf: Any, name: str) -> None:
    file, write = FORMATS[name]
    write(tmp_path / file, hf)
    whole = (tmp_path / file).read_bytes()
    for share in (0.001, 0.1, 0.5, 0.9, 0.999):
        (tmp_path / file).write_bytes(whole[: max(8, int(len(whole) * share))])
        line = refused("task=inspect", f"weights.path={tmp_path / file}", "model.n_head=4")
        assert_in(line, str(tmp_path / file))
        assert len(line) < 400


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_bytes_are_never_a_traceback(tmp_path: Path, hf: Any, name: str) -> None:
    file, write = FORMATS[name]
    write(tmp_path / file, hf)
    whole = (tmp_path / file).read_bytes()
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        damaged = bytearray(whole)
        for place in torch.randint(8, min(len(whole), 4000), (4,), generator=generator).tolist():
            damaged[place] = int(torch.randint(256, (1,), generator=generator))
        (tmp_path / file).write_bytes(damaged)
        assert len(refusal(tmp_path / file)) < 500


def refusal(file: Path) -> str:
    """What is wrong with the file; empty if it is loaded."""
    try:
        load(file, n_head=4)
    except UserError as error:
        return str(error)
    return ""


# llm.c


@pytest.mark.parametrize("version", [3, 5])
def test_llmc_with_a_padded_vocabulary(tmp_path: Path, version: int) -> None:
    hf = tiny_hf(vocab_size=50257, n_layer=1)
    writers.write_llmc(tmp_path / "model.bin", hf, version, padded=50304)
    checkpoint = load(tmp_path / "model.bin")
    expected = hf.to(torch.bfloat16).float() if version == 5 else hf
    assert_same_weights(checkpoint.model, expected)
    assert checkpoint.account.notes == (
        "the vocabulary has 50304 rows, and those from 50257 on are cut off: they are padding, as the header says",
    )
    assert ("cast" in checkpoint.account.summary) == (version == 5)


@pytest.mark.parametrize("header", [{"version": 1}, {"n_embd": 10**6}, {"n_layer": 2**31 - 1}, {"padded": 7}])
def test_llmc_headers_that_lie(tmp_path: Path, hf: Any, header: dict[str, int]) -> None:
    writers.write_llmc(tmp_path / "model.bin", hf, **header)
    with pytest.raises(UserError, match=r"model\.bin"):
        load(tmp_path / "model.bin")


def test_llmc_is_mapped(folder: Path, hf: Any) -> None:
    writers.write_llmc(folder / "mapped.bin", hf)
    model = load(folder / "mapped.bin").model
    maps = [line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines() if "mapped" in line]
    ranges = [(int(start, 16), int(end, 16)) for start, end in maps]
    assert all(any(a <= each.data_ptr() < b for a, b in ranges) for each in model.parameters())


# GGUF


@pytest.mark.parametrize(("kind", "error"), [("F16", 1e-3), ("BF16", 1e-2), ("Q8_0", 1e-2), ("Q4_0", 0.2)])
def test_gguf_in_fewer_bits(folder: Path, hf: Any, kind: str, error: float) -> None:
    writers.write_gguf(folder / "model.gguf", hf, kind)
    checkpoint = load(folder / "model.gguf")
    theirs = dict(hf.named_parameters())
    for name, parameter in checkpoint.model.named_parameters():
        expected = theirs[name].detach()
        expected = expected.t() if name.endswith(writers.MATRICES) else expected
        assert (parameter - expected).abs().max() <= error * expected.abs().max(), name
    kinds = {row.dtype for row in checkpoint.account.rows if row.name and row.name.endswith("c_fc.weight")}
    assert kinds == {{"F16": "float16", "BF16": "bfloat16"}.get(kind, kind)}
    assert bool(checkpoint.account.notes) == kind.startswith("Q")


def test_gguf_of_another_architecture(tmp_path: Path, hf: Any) -> None:
    writers.write_gguf(tmp_path / "model.gguf", hf, "F32", architecture="llama")
    with pytest.raises(UserError, match="architecture 'llama', not gpt2"):
        load(tmp_path / "model.gguf")


@pytest.mark.parametrize("counts", [(2**62, 1), (1, 2**62)])
def test_gguf_that_declares_too_much(tmp_path: Path, counts: tuple[int, int]) -> None:
    (tmp_path / "model.gguf").write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, *counts) + bytes(100))
    with pytest.raises(UserError, match="more than any GPT-2 has"):
        load(tmp_path / "model.gguf")


def gguf_text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (struct.pack("<IIQ", 9, 4, 2**40), "declares 1099511627777 values in its facts, more than any GPT-2 has"),
        (
            struct.pack("<IIQ", 9, 0, 2**20) + bytes(2**20),
            "declares 1048577 values in its facts, more than any GPT-2 has",
        ),
        (struct.pack("<IIQ", 9, 0, 400_000), "truncated, in the header of GGUF"),
        (struct.pack("<IIQ", 9, 8, 400_000) + bytes(8 * 1000), "truncated, in the header of GGUF"),
        (struct.pack("<IQ", 8, 2**63), "truncated, in the header of GGUF"),
        (struct.pack("<IIQ", 9, 9, 1), "a value of kind 9"),
        (struct.pack("<I", 77), "a value of kind 77"),
    ],
)
def test_gguf_facts_that_lie_about_their_length(tmp_path: Path, value: bytes, words: str) -> None:
    """The package gguf reads such an array for hours, and takes all memory."""
    kind = gguf_text("general.architecture") + struct.pack("<I", 8) + gguf_text("gpt2")
    content = struct.pack("<4sIQQ", b"GGUF", 3, 0, 2) + kind + gguf_text("long") + value
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(UserError, match=words):
        load(tmp_path / "model.gguf")


# Flax


@pytest.mark.parametrize(
    "content",
    [
        msgpack.ExtType(1, msgpack.packb(([10**9, 10], "float32", b"1234"))),
        msgpack.ExtType(1, msgpack.packb(([-1], "float32", b""))),
        msgpack.ExtType(1, msgpack.packb(([1], "object", b"1234"))),
        msgpack.ExtType(2, b""),
        "text",
        None,
        {"a": {"b": [1]}},
    ],
)
def test_flax_files_that_hold_something_else(tmp_path: Path, content: Any) -> None:
    (tmp_path / "model.msgpack").write_bytes(msgpack.packb({"transformer": content}))
    with pytest.raises(UserError, match=r"model\.msgpack"):
        load(tmp_path / "model.msgpack")


# OpenAI


def test_the_latest_of_several_tensorflow_checkpoints(folder: Path, hf: Any) -> None:
    writers.write_openai(folder, hf)
    for file in ("model.ckpt.index", "model.ckpt.data-00000-of-00001"):
        (folder / file.replace("model.ckpt", "model-1000")).write_bytes((folder / file).read_bytes())
    assert_same_weights(load(folder).model, hf)
    (folder / "checkpoint").unlink()
    with pytest.raises(UserError, match=r"several checkpoints.*model-1000\.index, model\.ckpt\.index"):
        load(folder)


# LoRA


@pytest.fixture
def adapter(folder: Path, hf: Any) -> Path:
    """An adapter as peft writes it, beside its base model."""
    hf.save_pretrained(folder / "base")
    for name in ("vocab.json", "merges.txt"):
        (folder / "base" / name).write_bytes((folder / name).read_bytes())
    target = folder / "adapter"
    target.mkdir()
    numbers = torch.Generator().manual_seed(2)
    factors = {}
    for name, tensor in writers.parameters(hf).items():
        if name.endswith(("attn.c_attn.weight", "attn.c_proj.weight")):
            site = f"base_model.model.transformer.{name.removesuffix('.weight')}"
            factors[f"{site}.lora_A.weight"] = torch.randn(4, tensor.shape[0], generator=numbers)
            factors[f"{site}.lora_B.weight"] = torch.randn(tensor.shape[1], 4, generator=numbers)
    save_file(factors, target / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 8,
        "base_model_name_or_path": "../base",
        "fan_in_fan_out": True,
    }
    (target / "adapter_config.json").write_text(json.dumps(config))
    return target


def change(adapter: Path, **settings: Any) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


@pytest.mark.parametrize("form", ["conv1d", "linear"])
@pytest.mark.parametrize(("settings", "scale"), [({}, 2.0), ({"use_rslora": True}, 4.0)])
def test_an_adapter_is_merged(adapter: Path, hf: Any, form: str, settings: dict[str, Any], scale: float) -> None:
    from safetensors.torch import load_file

    if form == "linear":
        save_file(writers.as_linear(writers.parameters(hf)), adapter.parent / "base" / "model.safetensors")
    change(adapter, **settings)
    checkpoint = load(adapter)
    factors = load_file(adapter / "adapter_model.safetensors")
    for name, tensor in writers.parameters(hf).items():
        site = f"base_model.model.transformer.{name.removesuffix('.weight')}"
        expected = tensor.t() if name.endswith(writers.MATRICES) else tensor
        if f"{site}.lora_A.weight" in factors:
            expected = expected + scale * factors[f"{site}.lora_B.weight"] @ factors[f"{site}.lora_A.weight"]
        assert torch.allclose(checkpoint.model.get_parameter(f"transformer.{name}"), expected, atol=1e-5), name
    assert "4 merged with an adapter" in checkpoint.account.summary
    assert checkpoint.model.config.n_head == 4  # of the base model's config.json
    assert set(checkpoint_digests(adapter)) >= {"adapter_model.safetensors", "model.safetensors", "adapter_config.json"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"use_dora": True}, "use_dora='True' is not supported"),
        ({"bias": "all"}, "bias='all' is not supported"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"r": 0}, "give no scale"),
        ({"r": 8}, None),
        ({"lora_alpha": "x"}, "give no scale"),
        ({"base_model_name_or_path": "nobody/nothing"}, "no base model 'nobody/nothing': put it into data/nothing/"),
        ({"base_model_name_or_path": None}, "no base_model_name_or_path"),
        ({"base_model_name_or_path": "../adapter"}, "is an adapter"),
    ],
)
def test_adapters_that_are_not_merged(adapter: Path, settings: dict[str, Any], words: str | None) -> None:
    change(adapter, **settings)
    if words is None:  # the rank is that of the factors, and r is part of the scale only
        load(adapter)
    else:
        with pytest.raises(UserError, match=words):
            load(adapter)


def test_an_adapter_of_another_model(adapter: Path) -> None:
    save_file(
        {"base_model.model.transformer.h.0.attn.c_attn.lora_A.weight": torch.ones(4, 32)},
        adapter / "adapter_model.safetensors",
    )
    with pytest.raises(UserError, match="one of lora_A and lora_B"):
        load(adapter)
    site = "base_model.model.transformer.h.0.attn.c_attn"
    save_file(
        {f"{site}.lora_A.weight": torch.ones(4, 48), f"{site}.lora_B.weight": torch.ones(144, 4)},
        adapter / "adapter_model.safetensors",
    )
    with pytest.raises(UserError, match=r"\[144, 4\] times \[4, 48\] is no change of"):
        load(adapter)
    save_file(
        {"base_model.model.model.layers.0.q_proj.lora_A.weight": torch.ones(4, 32)},
        adapter / "adapter_model.safetensors",
    )
    with pytest.raises(UserError, match="is unexpected in an adapter"):
        load(adapter)
