"""What must not cost a user a run, or a file: odd texts, readers that leave, full disks, folders in use."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import NANO, Cli, FullDisk, Result, read_csv, run_dir

TRAIN = (
    *("task=train", "model=nano", "task.data=text", "task.steps=1", "task.batch_size=1"),
    *("model.n_layer=1", "model.n_embd=16", "model.n_head=2", "model.n_positions=16", "model.vocab_size=270"),
)
TEXT = "to be, or not to be, that is the question. " * 50
ONE = ("task=generate", "decode=greedy", "decode.max_new_tokens=1")


def test_brackets_in_texts_and_paths_are_not_markup(gpt2x: Cli, launch: Path) -> None:
    result = gpt2x(*ONE, 'prompt="[red]a [/b]"')
    assert result.code == 0, result.err
    assert "[red]a [/b]" in result.out
    result = gpt2x(*ONE, 'prompt=["a","b"]', 'hydra.run.dir="o[/x]"')
    assert result.code == 0, result.err
    assert "results in o[/x]" in result.out
    shutil.copytree(NANO, launch / "m[/v]")
    result = gpt2x('weights.path="m[/v]"', 'task.gen_prompt=["[/a]"]', "decode.max_new_tokens=1")
    assert result.code == 0, result.err
    assert "m[/v]" in result.out
    assert "[/a]" in result.out


@pytest.mark.parametrize("args", [ONE, ("decode.max_new_tokens=1",), ("--help",)], ids=["generate", "validate", "help"])
def test_a_reader_that_leaves_costs_nothing(launch: Path, args: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "gpt2x", *args]
    done = subprocess.run(
        command, cwd=launch, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120, check=False
    )
    os.close(writer)
    assert (done.returncode, Result(0, "", done.stderr).warnings) == (0, "")
    if args != ("--help",):
        assert list(launch.glob("runs/*/*/manifest.json")) != []


def test_a_terminal_without_utf8_costs_nothing(gpt2x_process: Cli, launch: Path) -> None:
    result = gpt2x_process(*ONE, 'prompt="café 漢字"', PYTHONIOENCODING="ascii")
    assert result.code == 0, result.err
    assert read_csv(run_dir(launch, "generate") / "generations.csv")[0]["prompt"] == "café 漢字"


def test_files_that_others_make_meanwhile_are_kept(gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(config: Any, task: Any, folder: Path) -> None:
        (folder / "thesis").mkdir()
        (folder / "thesis" / "thesis.txt").write_text("years of work")
        raise KeyboardInterrupt

    monkeypatch.setattr("gpt2x.tasks.generate.run", run)
    assert gpt2x("task=generate", "hydra.run.dir=.").code == 130
    assert (launch / "thesis" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("name", ["train.csv", "state.pt", "checkpoint/config.json"])
def test_a_full_disk_while_training_is_one_line(gpt2x: Cli, launch: Path, full_disk: FullDisk, name: str) -> None:
    full_disk(launch / "run" / name)
    (launch / "text").write_text(TEXT)
    line = gpt2x(*TRAIN, "hydra.run.dir=run").error()
    assert f"cannot write run/{name}" in line


def test_near_ties_are_not_counted_as_the_same(gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpt2x.parity.reference import ask
    from gpt2x.parity.stages import generation

    def second_best(model: Any, ids: list[int], new: int, eos_id: int | None) -> list[int]:
        with torch.inference_mode():
            return model(torch.tensor([ids])).logits[0, -1].topk(2).indices[1:].tolist()

    monkeypatch.setattr(ask, "oracle_greedy", second_best)
    monkeypatch.setattr(generation, "_tie", lambda comparison: 1e3)
    result = gpt2x("decode.max_new_tokens=1")
    assert result.code == 0
    assert "0 of 1 texts the same, 1 parted at a near-tie" in result.out
    (summary,) = read_csv(run_dir(launch, "validate") / "summary.csv")
    assert summary["generations_matched"] == "0"


def test_a_sweep_in_a_folder_in_use_collects_all_jobs_of_sweeps(gpt2x: Cli, launch: Path) -> None:
    assert gpt2x(*ONE, "hydra.run.dir=s/single").code == 0
    assert gpt2x("-m", *ONE, "hydra.sweep.dir=s", "seed=1,2").code == 0
    assert gpt2x("-m", *ONE, "hydra.sweep.dir=s", "seed=3,4").code == 0
    assert [row["seed"] for row in read_csv(launch / "s" / "generations.csv")] == ["1", "2", "3", "4"]
    assert len(read_csv(launch / "s" / "jobs.csv")) == 4


def test_an_extreme_temperature_is_greedy(gpt2x: Cli) -> None:
    greedy = gpt2x("task=generate", "decode=greedy", "decode.max_new_tokens=8").out
    assert gpt2x("task=generate", "decode.temperature=1e-310", "decode.max_new_tokens=8").out == greedy


def test_a_large_seed_trains(gpt2x: Cli, launch: Path) -> None:
    (launch / "text").write_text(TEXT)
    assert gpt2x(*TRAIN, f"seed={2**63 - 1}").code == 0


def test_tensors_of_8_bits_and_untied_heads_are_refused(gpt2x: Cli, launch: Path) -> None:
    folder = shutil.copytree(NANO, launch / "odd")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    assert "tie_word_embeddings" in gpt2x("weights.path=odd").error()
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.ln_f.bias"] = tensors["transformer.ln_f.bias"].to(torch.float8_e4m3fn)
    save_file(tensors, folder / "model.safetensors")
    assert "transformer.ln_f.bias holds float8_e4m3fn" in gpt2x("weights.path=odd").error()


@pytest.mark.parametrize("size", ["model.n_layer=2", "model.n_positions=128"])
def test_random_weights_of_another_depth_have_a_tokenizer(gpt2x: Cli, size: str) -> None:
    assert gpt2x(*ONE, "model=nano", "weights=random", size).code == 0


def test_a_broken_link_is_not_passed_over(gpt2x: Cli, launch: Path) -> None:
    (launch / "data").mkdir()
    (launch / "data" / "gpt2_weights.pt").symlink_to("gone.pt")
    assert "data/gpt2_weights.pt" in gpt2x(*ONE).error()


def test_a_run_folder_with_a_broken_state_is_refused(gpt2x: Cli, launch: Path) -> None:
    (launch / "run").mkdir()
    (launch / "run" / "state.pt").write_bytes(b"junk")
    (launch / "text").write_text(TEXT)
    line = gpt2x(*TRAIN, "hydra.run.dir=run").error()
    assert "run/state.pt" in line
    assert (launch / "run" / "state.pt").read_bytes() == b"junk"
