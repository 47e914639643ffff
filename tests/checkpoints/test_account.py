"""What was done to each tensor of a checkpoint: weights.csv, one line on the console, and task=inspect."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gpt2x.checkpoints.names import is_conv1d
from tests.checkpoints.test_resolve import MODEL_ARGS, linear, load, prefixed
from tests.conftest import NANO, Cli, Refused, assert_in, read_csv, run_dir


def test_weights_csv(gpt2x: Cli, launch: Path) -> None:
    assert gpt2x("task=inspect", f"weights.path={NANO}").code == 0
    rows = read_csv(run_dir(launch, "inspect") / "weights.csv")
    tensors = load_file(NANO / "model.safetensors")
    assert [row["source"] for row in rows] == [*tensors, ""]
    for row in rows[:-1]:
        tensor = tensors[row["source"]]
        assert (row["name"], row["shape"], row["dtype"]) == (
            row["source"],
            "x".join(map(str, tensor.shape)),
            "float16",
        )
        assert row["done"] == ("transpose" if is_conv1d(row["name"]) else "")
        assert float(row["norm"]) == pytest.approx(tensor.double().norm().item(), rel=1e-6)
        assert row["sha256"] == hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
    assert (rows[-1]["name"], rows[-1]["done"]) == ("lm_head.weight", "tie")


def test_the_same_weights_have_the_same_checksums_in_every_layout(folder: Path, hf: Any) -> None:
    torch.save(hf.state_dict(), folder / "hf.pt")
    content = {"model": prefixed(linear(hf.state_dict()), "_orig_mod."), "model_args": MODEL_ARGS}
    torch.save(content, folder / "nanogpt.pt")
    first, second = (
        {row.name: row.sha256 for row in load(folder / file, 4, measure=True).account.rows}
        for file in ("hf.pt", "nanogpt.pt")
    )
    assert first == second
    assert None not in first.values()


def test_a_run_writes_weights_csv_without_checksums(gpt2x: Cli, launch: Path) -> None:
    for dtype, steps in (("float32", "transpose cast"), ("float16", "transpose")):
        folder = launch / dtype
        run = ("task=generate", f"dtype={dtype}", "decode.max_new_tokens=1", f"hydra.run.dir={folder}")
        assert gpt2x(*run).code == 0
        rows = read_csv(folder / "weights.csv")
        assert {row["done"] for row in rows if is_conv1d(row["name"])} == {steps}
        assert {row["sha256"] for row in rows} == {""}
    assert gpt2x("task=generate", "weights=random", "model=nano", "hydra.run.dir=random").code == 0
    assert not (launch / "random" / "weights.csv").exists()


def test_a_sweep_does_not_join_weights_csv(gpt2x: Cli, launch: Path) -> None:
    sweep = ("-m", "task=generate", "decode.max_new_tokens=1", "seed=1,2", "hydra.sweep.dir=out")
    assert gpt2x(*sweep).code == 0
    assert len(list(launch.glob("out/*/weights.csv"))) == 2
    assert not (launch / "out" / "weights.csv").exists()


def test_inspect_prints_the_architecture_and_a_table(gpt2x: Cli, launch: Path) -> None:
    result = gpt2x("task=inspect", f"weights.path={NANO}")
    assert max(map(len, result.out.splitlines())) <= 80
    assert_in(result.out, "n_layer 4, n_head 4, n_embd 256, n_positions 256, vocab_size 1024", "3,487,232")
    assert_in(result.out, "h.*.attn.c_attn.weight", "256x768", "52 tensors: 16 transposed, lm_head tied")
    assert "52 tensors" not in gpt2x("task=generate", "decode.max_new_tokens=1").err  # on a terminal only


def test_prefixes_leave_room_for_what_was_done(gpt2x: Cli, launch: Path) -> None:
    state = prefixed(load_file(NANO / "model.safetensors"), "_orig_mod.module.")
    buffers = {f"_orig_mod.module.transformer.h.{i}.attn.bias": torch.ones(1, 1, 256, 256) for i in range(4)}
    torch.save(state | buffers, launch / "nano.pt")
    lines = gpt2x("task=inspect", "weights.path=nano.pt", "model=nano").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert_in(
        "\n".join(line.rstrip()[:25] + line.rstrip()[-20:] for line in lines), "h.*.attn.bias", "rename transpose"
    )
    assert "…" not in "".join(lines)


def test_inspect_reads_a_file(refused: Refused) -> None:
    assert_in(refused("task=inspect", "weights=random", "model=nano"), "weights=random", "weights.path=FILE")


def test_what_was_concluded_is_said_once(gpt2x: Cli, launch: Path) -> None:
    torch.save({"state_dict": load_file(NANO / "model.safetensors"), "epoch": 3}, launch / "wrapped.pt")
    run = ("task=generate", "weights.path=wrapped.pt", f"weights.tokenizer={NANO}", "decode.max_new_tokens=1")
    assert gpt2x(*run).warnings == "gpt2x: note: not read, beside the weights: epoch=3\n"
    assert gpt2x(*run).warnings == ""
