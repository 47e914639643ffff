"""Names, layouts, architecture and vocabulary of files from elsewhere, against the model that they were made of."""

import argparse
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gpt2x.checkpoints.load import Checkpoint, load_checkpoint
from gpt2x.checkpoints.names import hf_name, is_conv1d
from gpt2x.config.model import ModelConfig
from gpt2x.config.weights import WeightsConfig
from gpt2x.errors import UserError
from tests.checkpoints.test_checkpoints import assert_same_weights
from tests.conftest import tiny_hf

State = dict[str, Tensor]


def load(path: Path, n_head: int | None = None, layout: str | None = None, **options: Any) -> Checkpoint:
    model, weights = ModelConfig(name="auto", n_head=n_head), WeightsConfig("local", path=str(path), layout=layout)
    return load_checkpoint(model, weights, torch.float32, torch.device("cpu"), **options)


def linear(state: State) -> State:
    """The layout of nanoGPT and nn.Linear."""
    return {name: tensor.t().contiguous() if is_conv1d(name) else tensor for name, tensor in state.items()}


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


# Names

NAMES = {
    "h.0.ln_1.weight": "h.0.ln_1.weight",
    "_orig_mod.module.transformer.h.11.attn.c_attn.bias": "h.11.attn.c_attn.bias",
    "module._orig_mod.model.transformer.wte.weight": "wte.weight",
    "model/h3/mlp/c_proj/w": "h.3.mlp.c_proj.weight",
    "model/h3/ln_2/g": "h.3.ln_2.weight",
    "model/ln_f/b": "ln_f.bias",
    "model/wpe": "wpe.weight",
    "transformer/h/0/attn/c_attn/kernel": "h.0.attn.c_attn.weight",
    "transformer/wte/embedding": "wte.weight",
    "transformer/h/0/ln_1/scale": "h.0.ln_1.weight",
    "tfgpt2lm_head_model/transformer/h_._10/attn/c_attn/weight:0": "h.10.attn.c_attn.weight",
    "tfgpt2lm_head_model/transformer/ln_f/gamma:0": "ln_f.weight",
    "tfgpt2lm_head_model/transformer/wte/embeddings:0": "wte.weight",
    "blk.7.attn_qkv.weight": "h.7.attn.c_attn.weight",
    "blk.7.ffn_norm.bias": "h.7.ln_2.bias",
    "token_embd.weight": "wte.weight",
    "output_norm.weight": "ln_f.weight",
}
OTHERS = [
    "h.0.mlp.c_fc.scale",
    "h.0.ln_1.kernel",
    "h.99999999.ln_1.weight",
    "h.0.attn.rotary.weight",
    "ln_1.weight",
    "h.0.wte2.weight",
    "v_head.summary.weight",
    "wte",
    "",
]


@pytest.mark.parametrize("source", NAMES)
def test_the_names_of_all_formats(source: str) -> None:
    assert hf_name(source) == f"transformer.{NAMES[source]}"


def test_the_head_and_names_of_other_tensors() -> None:
    assert hf_name("_orig_mod.lm_head.weight") == hf_name("output.weight") == "lm_head.weight"
    assert [name for name in OTHERS if name != "wte" and hf_name(name) is not None] == []


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.module.", "module._orig_mod.", "model.", "_orig_mod.module.model._forward_module."]
)
def test_prefixes_nest(folder: Path, hf: Any, prefix: str) -> None:
    torch.save(prefixed(hf.state_dict(), prefix), folder / "model.pt")
    checkpoint = load(folder / "model.pt", n_head=4)
    assert_same_weights(checkpoint.model, hf)
    assert checkpoint.account.summary == "28 tensors: 28 renamed, 8 transposed, lm_head tied"


def test_a_file_with_two_models_is_refused(folder: Path, hf: Any) -> None:
    state = hf.state_dict()
    torch.save(prefixed(state, "teacher.") | prefixed(state, "student."), folder / "model.pt")
    with pytest.raises(UserError, match=r"teacher\.\S+ and student\.\S+ are both .* more than one model"):
        load(folder / "model.pt", n_head=4)


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict", "module"])
def test_a_state_dict_may_be_under_a_key(folder: Path, hf: Any, key: str) -> None:
    wrapped = {key: hf.state_dict(), "optimizer": {"state": {}}, "iter_num": 7, "best_val_loss": torch.tensor(2.5)}
    torch.save(wrapped, folder / "model.pt")
    checkpoint = load(folder / "model.pt", n_head=4)
    assert_same_weights(checkpoint.model, hf)
    (note,) = checkpoint.account.notes
    assert note == "not read, beside the weights: optimizer, iter_num=7, best_val_loss=2.5"


def test_lightning(folder: Path, hf: Any) -> None:
    state = prefixed(hf.state_dict(), "net._orig_mod.")
    sizes = {"n_layer": 2, "n_head": 4, "n_embd": 32, "lr": 1e-3}
    content = {"state_dict": state, "hyper_parameters": sizes, "epoch": 1, "pytorch-lightning_version": "2.5.0"}
    torch.save(content, folder / "last.ckpt")
    assert_same_weights(load(folder / "last.ckpt").model, hf)


# nanoGPT

MODEL_ARGS = {
    "n_layer": 2,
    "n_head": 4,
    "n_embd": 32,
    "block_size": 64,
    "bias": True,
    "vocab_size": 300,
    "dropout": 0.0,
}


def test_nanogpt(folder: Path, hf: Any) -> None:
    state = prefixed(linear(hf.state_dict()), "_orig_mod.")
    content = {"model": state, "model_args": MODEL_ARGS, "iter_num": 5, "config": {"n_embd": 32}, "optimizer": {}}
    torch.save(content, folder / "ckpt.pt")
    checkpoint = load(folder / "ckpt.pt")
    assert_same_weights(checkpoint.model, hf)
    assert checkpoint.model.config.n_head == 4
    assert checkpoint.account.summary == "28 tensors: 28 renamed, lm_head tied"
    assert "exact GELU" in checkpoint.account.notes[0]


@dataclass
class GPTConfig:
    block_size: int = 64
    vocab_size: int = 300
    n_layer: int = 2
    n_head: int = 8
    n_embd: int = 32


@pytest.mark.parametrize("options", [GPTConfig(), argparse.Namespace(**vars(GPTConfig()))], ids=["class", "argparse"])
def test_build_nanogpt_keeps_its_options_in_an_object(folder: Path, hf: Any, options: Any) -> None:
    content = {"model": linear(hf.state_dict()), "config": options, "step": 3, "val_loss": 3.0}
    torch.save(content, folder / "model.pt")
    checkpoint = load(folder / "model.pt")
    assert_same_weights(checkpoint.model, hf)
    assert checkpoint.model.config.n_head == 8


def test_nanogpt_without_biases(folder: Path, hf: Any) -> None:
    other = tiny_hf(seed=3)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    state = {name: tensor for name, tensor in linear(other.state_dict()).items() if not name.endswith(".bias")}
    torch.save({"model": state, "model_args": MODEL_ARGS | {"bias": False}}, folder / "ckpt.pt")
    checkpoint = load(folder / "ckpt.pt")
    assert_same_weights(checkpoint.model, other)
    assert "13 zero, as the model has no biases" in checkpoint.account.summary
    torch.save({"model": state, "model_args": MODEL_ARGS}, folder / "lost.pt")
    with pytest.raises(UserError, match=r"transformer\.h\.0\.ln_1\.bias, .*, .* and 10 more are missing"):
        load(folder / "lost.pt")


@pytest.mark.parametrize("value", [0, -1, 10**9, "four", 2.0, True])
def test_options_that_cannot_be(folder: Path, hf: Any, value: Any) -> None:
    torch.save({"model": linear(hf.state_dict()), "model_args": MODEL_ARGS | {"n_layer": value}}, folder / "ckpt.pt")
    with pytest.raises(UserError, match=r"model_args says n_layer=.*which cannot be"):
        load(folder / "ckpt.pt")


# Layout


@pytest.mark.parametrize("form", [linear, dict], ids=["linear", "conv1d"])
def test_square_matrices_have_the_layout_of_the_others(
    folder: Path,
    hf: Any,
    form: Callable[[State], State],
) -> None:
    save_file({name: tensor.clone() for name, tensor in form(hf.state_dict()).items()}, folder / "model.safetensors")
    checkpoint = load(folder / "model.safetensors", n_head=4)
    assert_same_weights(checkpoint.model, hf)
    assert ("8 transposed" in checkpoint.account.summary) == (form is dict)


@pytest.mark.parametrize("layout", ["conv1d", "linear"])
def test_an_ambiguous_layout_is_refused_and_the_setting_settles_it(
    folder: Path,
    hf: Any,
    layout: str,
) -> None:
    state = hf.state_dict()
    name = "transformer.h.1.mlp.c_fc.weight"
    file = folder / "model.pt"
    torch.save(state | {name: state[name].t().contiguous()}, file)
    with pytest.raises(UserError, match=rf"{name} has shape \[128, 32\].*5 other.*weights\.layout=conv1d or"):
        load(file, n_head=4)
    found = dict(load(file, n_head=4, layout=layout).model.named_parameters())
    assert torch.equal(found[name], state[name].t())
    square = "transformer.h.0.attn.c_proj.weight"
    assert torch.equal(found[square], state[square].t() if layout == "conv1d" else state[square])


# Architecture


def test_the_number_of_heads_is_concluded_and_said(folder: Path) -> None:
    hf = tiny_hf(n_embd=128, n_head=2)
    torch.save(hf.state_dict(), folder / "model.pt")
    checkpoint = load(folder / "model.pt")
    assert checkpoint.model.config.n_head == 2
    assert "n_embd / 64 = 2" in checkpoint.account.notes[0]
    assert load(folder / "model.pt", n_head=4).account.notes == ()


def test_a_layer_between_others_is_missing(folder: Path, hf: Any) -> None:
    state = {name.replace(".h.1.", ".h.5."): tensor for name, tensor in hf.state_dict().items()}
    torch.save(state, folder / "model.pt")
    with pytest.raises(UserError, match=r"all tensors of transformer\.h\.1 are missing, but h\.5 is there"):
        load(folder / "model.pt", n_head=4)


# Directories


@pytest.mark.parametrize("shards", [1, 3])
def test_directory_of_pytorch_model_bin(folder: Path, hf: Any, shards: int) -> None:
    hf.config.save_pretrained(folder)
    state = {name: tensor.clone() for name, tensor in hf.state_dict().items() if name != "lm_head.weight"}
    if shards == 1:
        torch.save(state, folder / "pytorch_model.bin")
    else:
        place = {name: f"pytorch_model-{i % shards + 1:05}-of-{shards:05}.bin" for i, name in enumerate(state)}
        for file in set(place.values()):
            torch.save({name: tensor for name, tensor in state.items() if place[name] == file}, folder / file)
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": place}))
    assert_same_weights(load(folder).model, hf)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "a\\b", "\x1b[2J"])
def test_an_index_names_files_of_its_directory_only(folder: Path, hf: Any, name: str) -> None:
    hf.save_pretrained(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"transformer.wte.weight": name}}))
    with pytest.raises(UserError, match="not in this directory"):
        load(folder)


def test_an_index_of_very_many_files_is_refused(folder: Path, hf: Any) -> None:
    hf.save_pretrained(folder)
    place = {f"tensor {i}": f"{i}.safetensors" for i in range(1001)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": place}))
    with pytest.raises(UserError, match="names 1001 files, more than any GPT-2 has"):
        load(folder)


def test_a_tensor_in_two_shards(folder: Path, hf: Any) -> None:
    hf.save_pretrained(folder, max_shard_size="40KB")
    first, second, *_ = sorted(folder.glob("*.safetensors"))
    again = load_file(second) | {"transformer.wte.weight": hf.transformer.wte.weight.detach().clone()}
    assert "transformer.wte.weight" in load_file(first)
    save_file(again, second)
    with pytest.raises(UserError, match=r"transformer\.wte\.weight is in another shard"):
        load(folder)


# Vocabulary


def padded(rows: Tensor) -> State:
    """A model with GPT-2's vocabulary and these rows more, of width 32."""
    state = tiny_hf(vocab_size=50257, n_layer=1).state_dict()
    wte = torch.cat([state["transformer.wte.weight"], rows])
    return state | {"transformer.wte.weight": wte, "lm_head.weight": wte}


NOISE = 0.02 * torch.randn(47, 32, generator=torch.Generator().manual_seed(1))
UNUSED = {
    "are all zero": torch.zeros(47, 32),
    "are all equal": torch.full((47, 32), 0.3),
    "are shorter than 1%": 1e-3 * NOISE,
    "point the same way (their mean cosine is 0.9": NOISE + 0.1,
}


@pytest.mark.parametrize("why", UNUSED)
def test_rows_that_are_shown_to_be_padding_are_cut(tmp_path: Path, why: str) -> None:
    state = padded(UNUSED[why])
    torch.save(state, tmp_path / "model.pt")
    checkpoint = load(tmp_path / "model.pt", n_head=4)
    assert checkpoint.model.config.vocab_size == 50257
    assert torch.equal(checkpoint.model.lm_head.weight, state["transformer.wte.weight"][:50257])
    assert f"50304 rows, and those from 50257 on are cut off: they {why}" in checkpoint.account.notes[-1]


def test_a_vocabulary_that_config_json_states_is_kept(tmp_path: Path) -> None:
    torch.save(padded(torch.zeros(47, 32)), tmp_path / "model.pt")
    tiny_hf(vocab_size=50304, n_layer=1).config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no tokenizer with 50304 tokens"):
        load(tmp_path / "model.pt")


def test_a_config_json_with_another_number_of_tokens_is_named(tmp_path: Path, tiny_dir: Path) -> None:
    tiny_hf(vocab_size=300, n_layer=1).save_pretrained(tmp_path)
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(tiny_dir / name, tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"vocab_size": 310}))
    words = r"wte\.weight has shape \[300, 32\], config.json needs \[310, 32\]; the file fits model.vocab_size=300$"
    with pytest.raises(UserError, match=words):
        load(tmp_path)
    asked = ModelConfig(name="auto", vocab_size=300)
    weights = WeightsConfig("local", path=str(tmp_path))
    assert load_checkpoint(asked, weights, torch.float32, torch.device("cpu")).model.config.vocab_size == 300


def test_rows_that_may_be_in_use_are_kept(tmp_path: Path) -> None:
    torch.save(padded(NOISE), tmp_path / "model.pt")
    with pytest.raises(UserError, match="no tokenizer with 50304 tokens"):
        load(tmp_path / "model.pt", n_head=4)
    asked = ModelConfig(name="auto", vocab_size=50257, n_head=4)
    weights = WeightsConfig("local", path=str(tmp_path / "model.pt"))
    with pytest.raises(UserError, match=r"wte\.weight has shape \[50304, 32\], custom needs \[50257, 32\]"):
        load_checkpoint(asked, weights, torch.float32, torch.device("cpu"))
