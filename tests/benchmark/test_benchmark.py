"""task=benchmark: engines side by side, and what cannot be measured; never that one is faster than another."""

import json
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt2x.benchmark.engines import REGISTRY, Converter
from gpt2x.benchmark.engines import gpt2x as our_engine
from gpt2x.benchmark.engines import transformers as their_engine
from gpt2x.benchmark.measure import draw_prompts
from gpt2x.config.tasks.benchmark import ENGINES
from tests.conftest import REPO, Cli, Refused, assert_in, read_csv, run_dir, tiny_hf

SMALL = ("task=benchmark", "task.batch_sizes=[1,2]", "task.prompt_tokens=4", "task.new_tokens=4", "task.rounds=2")
INSTALLED = [entry.name for entry in REGISTRY if find_spec(entry.package)]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests in which no time has to be exact: no pauses between turns, and one try to measure the floors.

    Engines get one thread, because llama.cpp's threads are slow if other tests run at the same time.
    """
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    monkeypatch.setattr("gpt2x.benchmark.measure._SETTLE", 0.0)
    monkeypatch.setattr("gpt2x.benchmark.machine._REPEATS", 1)


# The registry


def test_the_settings_offer_the_engines_of_the_registry() -> None:
    assert tuple(entry.name for entry in REGISTRY) == ENGINES
    comment = (REPO / "conf" / "task" / "benchmark.yaml").read_text(encoding="utf-8")
    assert f"# {' | '.join(ENGINES)}" in comment


@pytest.mark.parametrize("entry", REGISTRY, ids=lambda entry: entry.name)
def test_every_engine_fits_the_protocol(entry: Any) -> None:
    if entry.name not in INSTALLED:
        pytest.skip("not installed")
    module = entry.load()
    assert "float32" in module.dtypes()
    assert callable(module.Engine.generate)
    assert isinstance(module, Converter) == (entry.name in ("ctranslate2", "openvino", "llamacpp"))
    assert entry.version()[0].isdigit()


# For real


def test_engines_side_by_side(gpt2x: Cli, launch: Path, at_once: None) -> None:
    result = gpt2x(*SMALL, f"task.engines=[{','.join(ENGINES)}]")
    assert result.code == 0, result.out + result.err
    for engine in ENGINES:
        assert (f"{engine} float32: left out, not installed" in result.out) == (engine not in INSTALLED)
    assert "floor, memory" in result.out
    assert f"transformers {version('transformers')}" in result.out
    folder = run_dir(launch, "benchmark")
    assert (folder / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    rows = read_csv(folder / "benchmark.csv")
    assert [(row["batch"], row["engine"], row["dtype"]) for row in rows] == [
        (batch, engine, "float32") for batch in ("1", "2") for engine in INSTALLED
    ]
    for row in rows:
        assert (row["prompt_tokens"], row["new_tokens"], row["same_tokens"]) == ("4", "4", "1.0")
        for column in ("tokens_per_second", "first_token_ms", "peak_rss_mb", "load_seconds", "ratio_to_transformers"):
            assert float(row[column]) > 0
        assert float(row["ms_per_step_p10"]) <= float(row["ms_per_step"]) <= float(row["ms_per_step_p90"])
        if row["engine"] == "transformers":
            assert row["ratio_to_transformers"] == "1.0"
    steps = [float(row["ms_per_step"]) for row in rows if row["engine"] == "gpt2x"]
    assert json.loads((folder / "job.json").read_text())["objective"] == pytest.approx(sum(steps) / 2)


@pytest.mark.parametrize("engine", [our_engine, their_engine], ids=["gpt2x", "transformers"])
def test_the_end_of_text_stops_no_engine(engine: Any, tiny_dir: Path, tmp_path: Path) -> None:
    model = tiny_hf(eos_token_id=0, bos_token_id=0)
    with torch.no_grad():  # whatever comes in, token 0 comes out
        model.transformer.wte.weight[0] = 1.0
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.fill_(1.0)
    model.save_pretrained(tmp_path)
    for file in tiny_dir.glob("*.*"):
        if not (tmp_path / file.name).exists():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    loaded = engine.Engine(tmp_path, "float32", 1)
    assert loaded.generate([[5, 6], [7, 8]], 5) == [[0] * 5] * 2
    logits = model(torch.tensor([[5, 6]])).logits[0, -1].sort().values
    assert loaded.margin([5, 6]) == pytest.approx((logits[-1] - logits[-2]).item(), abs=1e-4)


def test_gpt2x_generates_the_same_from_packed_weights(tiny_dir: Path) -> None:
    engine = our_engine.Engine(tiny_dir, "float32", 1)
    prompts = draw_prompts(5, 4, 300, seed=0)
    assert engine.generate(prompts, 6) == [engine.generate([prompt], 6)[0] for prompt in prompts]
    assert engine.generate(prompts, 6) == their_engine.Engine(tiny_dir, "float32", 1).generate(prompts, 6)


def test_rows_of_prompts_are_distinct_and_seeded() -> None:
    prompts = draw_prompts(30, 1, 30, seed=3)
    assert sorted(prompts) == [[i] for i in range(30)]
    assert draw_prompts(40, 2, 30, seed=3) == draw_prompts(40, 2, 30, seed=3) != draw_prompts(40, 2, 30, seed=4)


# What cannot be measured


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["task.engines=[gpt2x,transfomers]"], ["task.engines=transfomers", "did you mean 'transformers'?"]),
        (["task.dtypes=[float64]"], ["task.dtypes=float64", "bfloat16"]),
        (["task.engines=[]"], ["task.engines is empty"]),
        (["task.dtypes=[]"], ["task.dtypes is empty"]),
        (["task.batch_sizes=[]"], ["task.batch_sizes is empty"]),
        (["task.batch_sizes=[1,0]"], ["task.batch_sizes=0", "at least 1"]),
        (["task.new_tokens=1"], ["task.new_tokens=1", "at least 2"]),
        (["task.prompt_tokens=0"], ["task.prompt_tokens=0"]),
        (["task.rounds=0"], ["task.rounds=0"]),
        (["task.new_tokens=250"], ["task.prompt_tokens=32 and task.new_tokens=250", "256"]),
    ],
    ids=lambda value: " ".join(value[:1]),
)
def test_what_cannot_be_measured_is_refused(refused: Refused, args: list[str], words: list[str]) -> None:
    assert_in(refused("task=benchmark", *args), *words)


def test_engines_that_are_not_there_are_not_measured(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / "ctranslate2.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(tmp_path / "stub")
    assert_in(refused("task=benchmark", "task.engines=[ctranslate2]"), "task.engines", "gpt2x[bench]")
