"""task=train: what it learns, what it writes, and that a kill loses nothing."""

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from tests.conftest import NANO, Cli, read_csv, run_dir

TINY = (
    "task=train",
    "model=nano",
    "model.n_layer=1",
    "model.n_embd=32",
    "model.n_positions=32",
    "model.vocab_size=300",
    "task.batch_size=4",
    "task.warmup_steps=5",
    "task.lr=0.01",
)


@pytest.fixture
def text(launch: Path) -> Path:
    """A little language, with something to learn, and é for characters of two bytes."""
    file = launch / "text.txt"
    lines = [f"the café at {i % 24}:00 serves {i * 7 % 100} cups to {i * 3 % 10} people.\n" for i in range(800)]
    file.write_text("".join(lines), encoding="utf-8")
    return file


def test_training_learns_and_both_libraries_load_the_checkpoint(gpt2x: Cli, launch: Path, text: Path) -> None:
    from transformers import AutoTokenizer, GPT2LMHeadModel

    result = gpt2x(*TINY, f"task.data={text}", "task.steps=40", "task.eval_every=20")
    assert result.code == 0, result.err
    folder = run_dir(launch, "train")
    rows = read_csv(folder / "train.csv")
    assert [row["step"] for row in rows] == ["20", "40"]
    assert [row["tokens"] for row in rows] == [str(20 * 4 * 32), str(40 * 4 * 32)]
    assert float(rows[1]["val_loss"]) < float(rows[0]["val_loss"]) < math.log(300)
    assert (folder / "manifest.json").is_file()

    model = GPT2LMHeadModel.from_pretrained(folder / "checkpoint").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "checkpoint")
    assert (
        gpt2x(
            f"weights.path={folder / 'checkpoint'}", "decode.max_new_tokens=5", "prompt=the", "task.gen_prompt=the"
        ).code
        == 0
    )

    # The validation loss again, by transformers, over the last 10 % of the text in windows of 32.
    content = text.read_text(encoding="utf-8")
    held_out = content[int(len(content) * 0.9) :]
    ids = torch.tensor(tokenizer(held_out)["input_ids"])
    nats = 0.0
    with torch.no_grad():
        for start in range(0, len(ids) - 1, 32):
            window = ids[start : start + 33]
            nats += F.cross_entropy(model(window[None, :-1]).logits[0], window[1:], reduction="sum").item()
    assert float(rows[1]["val_loss"]) == pytest.approx(nats / (len(ids) - 1), rel=1e-5)
    predicted_bytes = len(held_out.encode()) - len(tokenizer.decode(ids[:1]).encode())
    assert float(rows[1]["val_bits_per_byte"]) == pytest.approx(nats / math.log(2) / predicted_bytes, rel=1e-5)


def test_killed_and_started_again_ends_in_the_same_bytes(gpt2x: Cli, launch: Path, text: Path) -> None:
    arguments = (*TINY, f"task.data={text}", "task.steps=150", "task.eval_every=5", "task.dropout=0.2")
    whole, killed = launch / "whole", launch / "killed"
    assert gpt2x(*arguments, f"hydra.run.dir={whole}").code == 0

    command = [sys.executable, "-m", "gpt2x", *arguments, f"hydra.run.dir={killed}"]
    process = subprocess.Popen(command, cwd=launch, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (killed / "state.pt").exists():
        assert process.poll() is None, "ended before its first checkpoint"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "manifest.json").exists(), "was not killed in time"

    result = gpt2x(*arguments, f"hydra.run.dir={killed}")
    assert result.code == 0, result.err
    assert "step 0 to 150" not in result.out  # it did go on
    for name in ("train.csv", "checkpoint/model.safetensors"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_run_folder_of_other_settings_is_refused(gpt2x: Cli, launch: Path, text: Path) -> None:
    arguments = (*TINY, f"task.data={text}", "task.eval_every=2", f"hydra.run.dir={launch / 'run'}")
    assert gpt2x(*arguments, "task.steps=2").code == 0
    before = (launch / "run" / "train.csv").read_bytes()
    assert "other settings" in gpt2x(*arguments, "task.steps=4").error()
    assert (launch / "run" / "train.csv").read_bytes() == before


def test_fine_tuning_starts_from_the_weights(gpt2x: Cli, launch: Path, text: Path) -> None:
    hardly = ("task.steps=1", "task.batch_size=1", "task.lr=1e-9", "task.min_lr=0")
    result = gpt2x("task=train", f"weights.path={NANO}", f"task.data={text}", *hardly)
    assert result.code == 0, result.err
    checkpoint = run_dir(launch, "train") / "checkpoint"
    assert (checkpoint / "vocab.json").read_bytes() == (NANO / "vocab.json").read_bytes()
    assert gpt2x("task=generate", "decode=greedy", "decode.max_new_tokens=5", f"weights.path={checkpoint}").out == (
        gpt2x("task=generate", "decode=greedy", "decode.max_new_tokens=5", f"weights.path={NANO}").out
    )


def test_weights_are_saved_in_the_dtype_asked_for(gpt2x: Cli, launch: Path, text: Path) -> None:
    from safetensors.torch import load_file

    assert gpt2x(*TINY, f"task.data={text}", "task.steps=1", "task.save_dtype=float16").code == 0
    folder = run_dir(launch, "train") / "checkpoint"
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.float16}
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"


def test_gpt2_vocabulary_is_used_where_the_model_has_it(gpt2x: Cli, launch: Path, text: Path) -> None:
    sizes = ("model.n_layer=1", "model.n_embd=16", "model.n_head=2", "model.n_positions=16")
    assert gpt2x("task=train", "model=gpt2", *sizes, f"task.data={text}", "task.steps=1", "task.batch_size=1").code == 0
    assert len(json.loads((run_dir(launch, "train") / "checkpoint" / "vocab.json").read_text())) == 50257


def test_only_matrices_decay() -> None:
    from gpt2x.config.tasks.train import TrainTask
    from gpt2x.model.config import GPT2Config
    from gpt2x.model.gpt2 import GPT2
    from gpt2x.training.optimizer import make_optimizer

    model = GPT2(GPT2Config(vocab_size=8, n_positions=4, n_embd=4, n_layer=1, n_head=1))
    settings = {"steps": 1, "batch_size": 1, "min_lr": 0.0, "warmup_steps": 0, "grad_clip": 1.0, "dropout": 0.0}
    train = TrainTask(
        data="text.txt", lr=1.0, beta2=0.9, weight_decay=0.1, eval_every=1, save_dtype="float32", **settings
    )
    decay = {
        id(p): group["weight_decay"] for group in make_optimizer(model, train).param_groups for p in group["params"]
    }
    for name, parameter in model.named_parameters():
        assert decay[id(parameter)] == (0.0 if name.endswith("bias") or ".ln_" in name else 0.1), name


def test_learning_rate_warms_up_and_falls_to_the_minimum() -> None:
    from gpt2x.config.tasks.train import TrainTask
    from gpt2x.training.optimizer import learning_rate

    settings = {"batch_size": 1, "weight_decay": 0.0, "beta2": 0.9, "grad_clip": 1.0, "dropout": 0.0, "eval_every": 1}
    train = TrainTask(data="text.txt", steps=100, lr=1.0, min_lr=0.1, warmup_steps=10, save_dtype="float32", **settings)
    rates = [learning_rate(step, train) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.55)
    assert rates[100] == pytest.approx(0.1)
    assert sorted(rates[10:], reverse=True) == rates[10:]
