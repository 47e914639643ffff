"""Which tokenizer a checkpoint is read with, and tokenizer files that are hostile or of another kind."""

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch

import gpt2x
from gpt2x.checkpoints.exporting.hf import save_checkpoint
from gpt2x.checkpoints.load import Checkpoint, load_checkpoint
from gpt2x.checkpoints.tokenizer_check import check_tokenizer
from gpt2x.checkpoints.tokenizers import Origin, find_tokenizer
from gpt2x.config.model import ModelConfig
from gpt2x.config.weights import WeightsConfig
from gpt2x.errors import UserError
from gpt2x.model.config import GPT2Config
from gpt2x.tokenizer import Tokenizer, load_tokenizer
from tests.checkpoints.loopback_hub import sha256
from tests.conftest import NANO, REPO, Cli, assert_in, tiny_hf

GPT2_DIR = REPO / "data" / "gpt2"
OF_GPT2 = GPT2Config(n_layer=1, n_embd=8, n_head=1)
LOCAL = WeightsConfig("local")


def load(path: Path, tokenizer: str | None = None) -> Checkpoint:
    weights = WeightsConfig("local", str(path), tokenizer=tokenizer)
    return load_checkpoint(ModelConfig("auto"), weights, torch.float32, torch.device("cpu"))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with 50257 tokens and without a tokenizer."""
    folder = tmp_path_factory.mktemp("bare")
    tiny_hf(vocab_size=50257).save_pretrained(folder)
    return folder


@pytest.fixture
def own(tmp_path: Path, tiny_dir: Path) -> Path:
    """A copy of a checkpoint with 300 tokens, whose tokenizer is a tokenizer.json alone."""
    folder = tmp_path / "own"
    shutil.copytree(tiny_dir, folder)
    load_tokenizer(folder).backend.save(str(folder / "tokenizer.json"))
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (folder / name).unlink()
    return folder


@pytest.mark.parametrize(
    ("path", "origin"),
    [
        (None, Origin.RANDOM),
        ("data/gpt2_weights.pt", Origin.PLACE),
        ("data/gpt2-xl_weights.safetensors", Origin.PLACE),
        ("data/distilgpt2", Origin.PLACE),
        ("data/my-gpt2_weights.pt", Origin.ASSUMED),
        ("elsewhere/gpt2_weights.pt", Origin.ASSUMED),
        ("hub/models--openai-community--gpt2/snapshots/0123", Origin.REPOSITORY),
        ("hub/models--gpt2-large/snapshots/0123", Origin.REPOSITORY),
        ("hub/models--distilbert--distilgpt2/snapshots/0123", Origin.REPOSITORY),
        ("hub/models--someone--gpt2/snapshots/0123", Origin.ASSUMED),
    ],
)
def test_what_is_known_to_be_gpt2s(path: str | None, origin: Origin, launch: Path) -> None:
    source = find_tokenizer(LOCAL, Path(path) if path else None, OF_GPT2)
    assert (source.directory, source.name, source.origin) == (GPT2_DIR, "gpt2", origin)


def test_an_assumed_tokenizer_is_warned_of_in_one_line(bare: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert load(bare).tokenizer_source.origin is Origin.ASSUMED
    (record,) = caplog.records
    assert_in(record.getMessage(), str(bare), "no tokenizer", "weights.tokenizer=DIR", "weights.tokenizer=gpt2")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("vocab.txt", "WordPiece"), ("spiece.model", "sentencepiece"), ("tokenizer.model", "sentencepiece")],
)
def test_a_tokenizer_of_another_kind_is_not_replaced(
    bare: Path, own: Path, tmp_path: Path, name: str, kind: str
) -> None:
    """The model has as many tokens as GPT-2, and was trained with others. In the second folder, no size fits."""
    of_size, other_size = tmp_path / "of_size", tmp_path / "other_size"
    shutil.copytree(bare, of_size)
    tiny_hf(vocab_size=21128).save_pretrained(other_size)
    for folder in (of_size, other_size):
        (folder / name).write_bytes(b"\x0a")
        with pytest.raises(
            UserError, match=f"{name}: a tokenizer of the kind {kind}, and gpt2x reads byte-level BPE only"
        ):
            load(folder)
    assert load(of_size, "gpt2").tokenizer_source.origin is Origin.SETTING
    (own / name).write_bytes(b"\x0a")  # beside one that is read
    assert load(own).tokenizer_source.origin is Origin.BESIDE


def test_the_user_can_name_the_tokenizer(bare: Path, own: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert load(bare, "gpt2").tokenizer_source.origin is Origin.SETTING
        other = load(bare, str(own))
        assert other.tokenizer.encode("to be") == load(own).tokenizer.encode("to be")
        assert other.tokenizer_source.directory == own
    assert caplog.records == []
    model, tokenizer = gpt2x.load(bare, tokenizer=own)
    assert tokenizer.vocab_size < model.config.vocab_size
    with pytest.raises(UserError, match="more than the model's 300; name another tokenizer"):
        load(own, "gpt2")
    with pytest.raises(UserError, match=r"^weights.tokenizer=nowhere: not a folder with tokenizer.json"):
        load(bare, "nowhere")


def test_the_manifest_names_the_tokenizer(gpt2x: Cli, own: Path, launch: Path) -> None:
    result = gpt2x("task=generate", f"weights.path={own}", "prompt=be", "decode.max_new_tokens=1", "hydra.run.dir=run")
    assert (result.code, result.warnings) == (0, "")
    manifest = json.loads((launch / "run" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["checkpoint"]["tokenizer"] == {
        "name": str(own),
        "path": str(own),
        "origin": Origin.BESIDE,
        "sha256": {"tokenizer.json": sha256(own / "tokenizer.json")},
    }


def test_a_run_is_another_one_with_another_tokenizer(own: Path, tmp_path: Path) -> None:
    from gpt2x.cli.composition import default_settings
    from gpt2x.cli.identity import identity_of

    def identity(tokenizer: Path) -> Any:
        settings: dict[str, Any] = {}
        for key, value in default_settings("generate").items():
            inner = settings
            *groups, name = key.split(".")
            for group in groups:
                inner = inner.setdefault(group, {})
            inner[name] = value
        settings["weights"]["tokenizer"] = str(tokenizer)
        return identity_of(settings)

    copy = shutil.copytree(own, tmp_path / "copy")
    assert identity(own) == identity(copy)
    (copy / "tokenizer.json").write_text("{}")
    assert identity(own) != identity(copy)


def test_a_training_from_scratch_refuses_it(gpt2x: Cli, launch: Path) -> None:
    (launch / "text.txt").write_text("to be or not to be " * 1000)
    line = gpt2x("task=train", "model=nano", "task.data=text.txt", "weights.tokenizer=gpt2").error()
    assert_in(line, "weights.tokenizer=gpt2", "model.tokenizer")


# What tokenizer files say


def plain() -> dict[str, Any]:
    """A tokenizer.json as GPT-2's, with three tokens."""
    step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": step,
        "post_processor": None,
        "decoder": step,
        "model": {"type": "BPE", "vocab": {"h": 0, "e": 1, "he": 2}, "merges": [["h", "e"]]},
    }


def in_model(**changed: Any) -> dict[str, Any]:
    return {"model": plain()["model"] | changed}


ADDED = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
SPLIT = {"type": "Split", "pattern": {"Regex": "(a+)+$"}}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (in_model(vocab={"h": 0, "e": 1, "he": 2**32 - 1}), "4294967296 tokens, more than the model's 3;"),
        (in_model(vocab={"h": 0, "e": 1, "he": -1}), "not a vocabulary"),
        (in_model(vocab={"h": 0, "e": 1, "he": True}), "not a vocabulary"),
        (in_model(vocab={"h": 0, "e": 1, "he": 1}), "two tokens have the same id"),
        (in_model(vocab={"h": 0, "e": 1}), "merge"),
        (in_model(merges=[["h"]]), "merge"),
        (in_model(merges=[["h", ["e"]]]), "merge"),
        (in_model(merges={}), "no merges"),
        (in_model(continuing_subword_prefix="xxxxx"), "continuing_subword_prefix"),
        (in_model(dropout=0.5), "dropout"),
        (in_model(type="Unigram", unk_id=5, vocab=[]), "not a byte-level BPE"),
        ({"model": []}, "not a byte-level BPE"),
        ({"decoder": None}, "not a byte-level BPE"),
        ({"decoder": {"type": "Metaspace"}}, "not ByteLevel"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "/////w=="}}, "Precompiled"),
        ({"normalizer": {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}}, "Replace"),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [SPLIT]}}, "Split"),
        ({"pre_tokenizer": "ByteLevel"}, "pre_tokenizer"),
        ({"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "A"}}]}}, "special"),
        ({"added_tokens": [{"id": 2**32 - 1, "content": "x", **ADDED}]}, "4294967296 tokens"),
        ({"added_tokens": ["x"]}, "added_tokens"),
    ],
)
def test_a_hostile_tokenizer_json_is_one_line(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(plain()))
    check_tokenizer(tmp_path, 3)
    assert load_tokenizer(tmp_path).encode("he") == [2]
    (tmp_path / "tokenizer.json").write_text(json.dumps(plain() | changed))
    with pytest.raises(UserError, match=words):
        check_tokenizer(tmp_path, 3)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"tokenizer.json": '{"a":' * 10**5 + "1" + "}" * 10**5}, "tokenizer.json: not JSON"),
        ({"tokenizer.json": "[]"}, "tokenizer.json: not a JSON object"),
        ({"tokenizer.json": "9" * 10**5}, "tokenizer.json: not JSON"),
        ({"merges.txt": "h e"}, "vocab.json: No such file"),
        ({"vocab.json": "[" * 10**5, "merges.txt": "h e"}, "vocab.json: not JSON"),
        ({"vocab.json": '{"h": 0, "e": 1, "he": 4294967295}', "merges.txt": "h e"}, "4294967296 tokens"),
        ({"vocab.json": '{"h": 0, "e": 1}', "merges.txt": "#version: 0.2\nh e\n"}, "merge"),
        ({"vocab.json": "{}", "merges.txt": "", "added_tokens.json": '{"x": 7}'}, "do not follow"),
        ({"vocab.json": "{}", "merges.txt": "", "special_tokens_map.json": "[]"}, "special_tokens_map.json: not"),
        ({"vocab.json": "{}", "merges.txt": "\udcff"}, "merges.txt: not UTF-8"),
    ],
)
def test_other_hostile_files_are_one_line(tmp_path: Path, files: dict[str, str], words: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=words) as error:
        check_tokenizer(tmp_path, 300)
    assert len(str(error.value)) < len(str(tmp_path)) + 200


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "tokenizer.json").open("wb") as stream:
        stream.truncate(10**10)
    with pytest.raises(UserError, match=r"tokenizer.json: larger than"):
        check_tokenizer(tmp_path, 300)


def test_the_check_comes_before_the_package_reads(own: Path, tmp_path: Path) -> None:
    """This file would end the process."""
    content = json.loads((own / "tokenizer.json").read_text(encoding="utf-8"))
    content["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "/////w=="}
    (own / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="Precompiled"):
        load(own)
    code = f"import tokenizers; tokenizers.Tokenizer.from_file({str(own / 'tokenizer.json')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode != 0


def test_bundled_tokenizers_pass_the_check() -> None:
    check_tokenizer(GPT2_DIR, 50257)
    check_tokenizer(NANO, 1024)


# Tokenizers that are more than a vocabulary


@pytest.fixture
def with_roles(tiny_dir: Path) -> Tokenizer:
    """A tokenizer with two more special tokens, one of which ends texts, which normalizes texts."""
    backend = load_tokenizer(tiny_dir).backend
    backend.normalizer = tokenizers.normalizers.Lowercase()
    backend.add_special_tokens(["<|user|>", "<|end|>"])
    return Tokenizer(backend, "<|end|>")


def test_tokenizer_json_comes_first(own: Path, with_roles: Tokenizer, tiny_dir: Path) -> None:
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(tiny_dir / name, own)
    with_roles.save(own)
    assert load_tokenizer(own).encode("TO BE") == with_roles.encode("to be")


def test_special_tokens_survive_saving(with_roles: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    text = "<|user|>To be?<|end|>"
    with_roles.save(tmp_path)
    check_tokenizer(tmp_path, with_roles.vocab_size)
    again = load_tokenizer(tmp_path)
    assert again.encode(text) == with_roles.encode(text)
    assert again.eos_id == with_roles.vocab_size - 1 == 301
    hf = AutoTokenizer.from_pretrained(tmp_path)
    assert (hf(text)["input_ids"], hf.eos_token_id) == (again.encode(text), again.eos_id)


def test_added_tokens_of_a_vocabulary_are_read(tiny_dir: Path, tmp_path: Path) -> None:
    """As the slow tokenizers of transformers wrote them."""
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(tiny_dir / name, tmp_path)
    (tmp_path / "added_tokens.json").write_text('{"<|end|>": 301, "<|user|>": 300}')
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": {"content": "<|end|>", "lstrip": false}}')
    check_tokenizer(tmp_path, 302)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode("<|user|><|end|>") == [300, 301]
    assert tokenizer.eos_id == 301


def test_a_fine_tune_keeps_its_tokenizer(own: Path, with_roles: Tokenizer, tmp_path: Path) -> None:
    tiny_hf(vocab_size=302).save_pretrained(own)
    with_roles.save(own)
    checkpoint = load(own)
    assert checkpoint.tokenizer.eos_id == 301
    save_checkpoint(tmp_path / "saved", checkpoint.model, checkpoint.tokenizer, torch.float32)
    assert load(tmp_path / "saved").tokenizer.encode("<|user|>TO") == with_roles.encode("<|user|>to")


def test_validate_compares_with_the_same_tokenizer(gpt2x: Cli, own: Path, with_roles: Tokenizer) -> None:
    tiny_hf(vocab_size=302).save_pretrained(own)
    with_roles.save(own)
    result = gpt2x("task=validate", f"weights.path={own}", "prompt=TO BE", "task.stages=[config,tokenizer]")
    assert result.code == 0, result.out
