"""task=validate: passes on what is right, for every kind of weights, and fails on what is wrong."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from gpt2x.config.tasks.validate import Stage
from gpt2x.model.attention import Attention
from gpt2x.model.block import MLP, Block
from gpt2x.model.gpt2 import GPT2, Transformer
from tests.conftest import NANO, Cli, read_csv, run_dir

FAST = ("decode.max_new_tokens=8",)


def test_nano_passes_by_default(gpt2x: Cli, launch: Path) -> None:
    result = gpt2x()
    assert result.code == 0, result.out
    assert "PASS" in result.out
    folder = run_dir(launch, "validate")
    parity = read_csv(folder / "parity.csv")
    assert list(dict.fromkeys(row["stage"] for row in parity)) == list(Stage)
    assert {row["status"] for row in parity} == {"ok"}
    assert sum(row["stage"] == "weights" for row in parity) == 4 + 12 * 4 + 1
    (summary,) = read_csv(folder / "summary.csv")
    assert summary["verdict"] == "pass"
    assert summary["parameters_subject"] == summary["parameters_reference"] == "3487232"
    assert summary["generations_matched"] == summary["generations_total"] == "1"
    assert float(summary["max_abs_logit_difference"]) < 1e-4
    (text,) = read_csv(folder / "side_by_side.csv")
    assert text["verdict"] == "same"
    assert text["matched"] == "50"
    assert text["subject_text"] == text["reference_text"] != ""


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_every_dtype_passes(gpt2x: Cli, dtype: str) -> None:
    result = gpt2x(*FAST, f"dtype={dtype}")
    assert result.code == 0, result.out


def test_random_weights_pass(gpt2x: Cli, launch: Path) -> None:
    sizes = ("model.n_layer=3", "model.n_embd=48", "model.n_head=3", "model.n_positions=64")
    stages = "task.stages=[config,tokenizer,weights,layers,logits,generation]"  # the README's command runs all of them
    assert gpt2x(*FAST, "model=gpt2", "weights=random", *sizes, stages).code == 0
    (summary,) = read_csv(run_dir(launch, "validate") / "summary.csv")
    assert summary["model"] == "custom"
    assert summary["weights"] == "random (seed 0)"


def test_a_state_dict_in_data_is_found_by_name(gpt2x: Cli, launch: Path) -> None:
    from transformers import GPT2LMHeadModel

    (launch / "data").mkdir()
    model = GPT2LMHeadModel.from_pretrained(NANO, dtype=torch.float32)
    torch.save(model.state_dict(), launch / "data" / "nano_weights.pt")
    assert gpt2x(*FAST, "model=nano").code == 0
    (summary,) = read_csv(run_dir(launch, "validate") / "summary.csv")
    assert summary["weights"] == "data/nano_weights.pt"


def test_a_stripped_state_dict_of_unknown_size_passes_with_its_heads_named(gpt2x: Cli, launch: Path) -> None:
    from tests.conftest import tiny_hf

    torch.save(tiny_hf(vocab_size=50257).transformer.state_dict(), launch / "mine.pt")
    assert "model.n_head" in gpt2x(*FAST, "weights.path=mine.pt").error()
    stages = "task.stages=[weights,layers,logits]"  # the draws from so many tokens take long
    assert gpt2x(*FAST, "weights.path=mine.pt", "model.n_head=4", stages).code == 0


def test_every_gen_prompt_is_compared(gpt2x: Cli, launch: Path) -> None:
    assert gpt2x(*FAST, 'task.gen_prompt=["First, a comma", "It\'s"]').code == 0
    rows = read_csv(run_dir(launch, "validate") / "side_by_side.csv")
    assert [row["prompt"] for row in rows] == ["First, a comma", "It's"]


def test_results_are_the_same_bytes_twice(gpt2x: Cli, launch: Path) -> None:
    for folder in ("a", "b"):
        assert gpt2x(*FAST, f"hydra.run.dir={folder}").code == 0
    for name in ("parity.csv", "summary.csv", "side_by_side.csv"):
        assert (launch / "a" / name).read_bytes() == (launch / "b" / name).read_bytes()


def test_pandas_reads_what_was_written(gpt2x: Cli, launch: Path) -> None:
    prompt = 'quotes " and, commas\nand\r\nlines'
    assert gpt2x(*FAST, f"task.gen_prompt={quoted(prompt)}").code == 0
    table = pd.read_csv(run_dir(launch, "validate") / "side_by_side.csv")
    assert table["prompt"][0] == prompt


def quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'


def erf_gelu(monkeypatch: pytest.MonkeyPatch) -> None:
    init = MLP.__init__
    monkeypatch.setattr(MLP, "__init__", lambda self, config: (init(self, config), setattr(self, "act", nn.GELU()))[0])


def post_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self, x, mask=None, cache=None):
        x = self.ln_1(x + self.attn(x, mask, cache))
        return self.ln_2(x + self.mlp(x))

    monkeypatch.setattr(Block, "forward", forward)


def no_final_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = Transformer.forward

    def without(self, *args):
        self.ln_f.forward = lambda x: x
        return forward(self, *args)

    monkeypatch.setattr(Transformer, "forward", without)


def no_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = Attention.forward

    def unscaled(self, x, mask=None, cache=None):
        weight = self.c_attn.weight
        width = x.shape[-1]
        self.c_attn.weight = nn.Parameter(torch.cat([weight[:width] * 2, weight[width:]]), requires_grad=False)
        try:
            return forward(self, x, mask, cache)
        finally:
            self.c_attn.weight = weight

    monkeypatch.setattr(Attention, "forward", unscaled)


def positions_shifted(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = GPT2.forward

    def shifted(self, *args, **kwargs):
        wpe = self.transformer.wpe.weight
        self.transformer.wpe.weight = nn.Parameter(wpe.roll(1, 0), requires_grad=False)
        try:
            return forward(self, *args, **kwargs)
        finally:
            self.transformer.wpe.weight = wpe

    monkeypatch.setattr(GPT2, "forward", shifted)


@pytest.mark.parametrize(
    ("mistake", "site"),
    [
        (erf_gelu, "h.0.mlp.act"),
        (post_norm, "h.0"),
        (no_final_norm, "ln_f"),
        (no_scale, "h.0.attn.c_attn"),
        (positions_shifted, "wpe"),
    ],
)
def test_a_wrong_forward_pass_of_our_own_fails(
    gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch, fresh_models: None, mistake, site: str
) -> None:
    mistake(monkeypatch)
    result = gpt2x(*FAST)
    assert result.code == 1, result.out
    assert "FAIL" in result.out
    (summary,) = read_csv(run_dir(launch, "validate") / "summary.csv")
    assert summary["verdict"] == "fail"
    assert summary["first_divergence"] == site
    if mistake is erf_gelu:
        assert summary["probable_cause"].startswith("unknown: gpt2x's own module differs")


@pytest.mark.parametrize("name", ["attn.c_proj", "attn.c_attn", "mlp.c_fc"])
def test_a_weight_read_wrongly_is_named(
    gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch, fresh_models: None, name: str
) -> None:
    from gpt2x.checkpoints import load

    resolve = load.resolve

    def wrong(*args):
        found = resolve(*args)
        key = f"transformer.h.1.{name}.weight"
        found.state[key] = found.state[key].flip(0)
        return found

    monkeypatch.setattr(load, "resolve", wrong)
    assert gpt2x(*FAST).code == 1
    (summary,) = read_csv(run_dir(launch, "validate") / "summary.csv")
    assert summary["first_divergence"] == f"h.1.{name}"


def test_a_wrong_tokenizer_is_named(gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpt2x.tokenizer import Tokenizer

    encode = Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda self, text: encode(self, text.replace("\r\n", "\n")))
    assert gpt2x(*FAST).code == 1
    (summary,) = read_csv(run_dir(launch, "validate") / "summary.csv")
    assert summary["first_divergence"] == "tokenizer: newlines"


@pytest.fixture
def fresh_models():
    """Models made while a class is broken must not be found in the cache, before or after."""
    from gpt2x.checkpoints.load import _loaded

    _loaded.clear()
    yield
    _loaded.clear()


def test_a_wrong_decoder_is_named(gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpt2x.tokenizer import Tokenizer

    decode = Tokenizer.decode
    monkeypatch.setattr(Tokenizer, "decode", lambda self, ids: decode(self, ids).replace("\t", " "))
    assert gpt2x(*FAST).code == 1
    (summary,) = read_csv(run_dir(launch, "validate") / "summary.csv")
    assert summary["first_divergence"] == "tokenizer: spaces"


def test_logits_that_are_not_numbers_fail(
    gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch, fresh_models: None
) -> None:
    forward = MLP.forward
    monkeypatch.setattr(MLP, "forward", lambda self, x: forward(self, x) * float("nan"))
    assert gpt2x(*FAST).code == 1
    parity = read_csv(run_dir(launch, "validate") / "parity.csv")
    logits = {row["metric"]: row["status"] for row in parity if row["stage"] == "logits" and row["mode"] == "float64"}
    assert logits == {
        **dict.fromkeys(("max_abs_difference", "mean_abs_difference", "relative_difference", "mean_kl"), "nonfinite"),
        "top1_agreement": "mismatch",
    }


def test_a_vocabulary_that_lacks_bytes_is_no_divergence(gpt2x: Cli, launch: Path) -> None:
    import json

    import tokenizers

    from tests.conftest import tiny_hf

    bpe = tokenizers.ByteLevelBPETokenizer()
    text = ["to be or not to be that is the question"] * 3
    bpe.train_from_iterator(text, vocab_size=300, special_tokens=["<|endoftext|>"], show_progress=False)
    vocabulary = {token: i for i, token in enumerate(t for t in bpe.get_vocab() if len(t) > 1 or t.isascii())}
    (launch / "m").mkdir()
    (launch / "m" / "vocab.json").write_text(json.dumps(vocabulary))
    (launch / "m" / "merges.txt").write_text("#version: 0.2\n")
    tiny_hf(vocab_size=len(vocabulary)).save_pretrained(launch / "m")
    result = gpt2x(*FAST, "weights.path=m", "prompt=to", "task.gen_prompt=to")
    assert result.code == 0, result.out
