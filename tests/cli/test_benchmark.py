"""task=benchmark: engines side by side, in numbers that mean what they say; never that one is faster than another."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt2x.benchmark.engines import gpt2x as our_engine
from gpt2x.benchmark.engines import transformers as their_engine
from gpt2x.benchmark.measure import Measured, draw_prompts
from gpt2x.benchmark.worker import Worker
from gpt2x.config.schema import ENGINES
from gpt2x.errors import UserError
from tests.cli.conftest import Refused, assert_in
from tests.conftest import Cli, read_csv, run_dir, tiny_hf

SMALL = ("task=benchmark", "task.batch_sizes=[1,2]", "task.prompt_tokens=4", "task.new_tokens=4", "task.rounds=2")
INSTALLED = [engine for engine in ENGINES if engine.startswith("gpt2x") or find_spec(engine)]

# For real


def test_engines_side_by_side(gpt2x: Cli, launch: Path) -> None:
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


# A worker, around a stub of ctranslate2

STUB = """
from pathlib import Path
from types import SimpleNamespace

__version__ = "1.2.3-build"

def get_supported_compute_types(device):
    return {"float32"}

class TransformersConverter:
    def __init__(self, directory):
        self.directory = directory

    def convert(self, folder, quantization):
        Path(folder).mkdir()
        Path(folder, "vocabulary.json").write_text('["a", "b"]')

converters = SimpleNamespace(TransformersConverter=TransformersConverter)

class Generator:
    def __init__(self, folder, **options):
        assert options["compute_type"] == "float32" and options["intra_threads"] == 3

    def generate_batch(self, prompts, max_length, **options):
        return [SimpleNamespace(sequences_ids=[[len(prompt)] * max_length]) for prompt in prompts]
"""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Worker]]:
    """Starts a worker in tmp_path, with this as the source of ctranslate2."""
    workers = []

    def run(source: str, dtype: str = "float32") -> Worker:
        (tmp_path / "stub").mkdir()
        (tmp_path / "stub" / "ctranslate2.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path / "stub")
        workers.append(Worker("ctranslate2", dtype, tmp_path, 3))
        return workers[-1]

    yield run
    for worker in workers:
        worker.close()


def test_a_worker_converts_loads_and_generates(start: Callable[..., Worker], tmp_path: Path) -> None:
    ballast = bytearray(b"x" * 500_000_000)  # of this process: not to be counted
    worker = start(STUB)
    del ballast
    assert worker.missing() is None
    assert worker.ask("version") == "1.2.3"
    assert worker.ask("converts")
    worker.ask("convert")
    assert (tmp_path / "ctranslate2-float32" / "vocabulary.json").is_file()
    assert worker.ask("load") > 0
    tokens, seconds = worker.ask("generate", [[0, 1, 1], [1, 0, 0]], 2)
    assert tokens == [[3, 3], [3, 3]]
    assert seconds > 0
    assert 5e6 < worker.ask("peak_rss") < 400e6
    with pytest.raises(RuntimeError, match=r"(?s)ctranslate2 in float32:.*IndexError"):
        worker.ask("generate", [[2]], 1)


@pytest.mark.parametrize(
    ("source", "dtype", "reason"),
    [
        ("raise ImportError('no such thing')", "float32", "not installed (no such thing)"),
        (STUB, "bfloat16", "has no bfloat16 on this machine"),
    ],
)
def test_what_cannot_take_part_says_why(start: Callable[..., Worker], source: str, dtype: str, reason: str) -> None:
    assert start(source, dtype).missing() == reason


def test_a_worker_that_dies_is_the_users_to_know(start: Callable[..., Worker]) -> None:
    worker = start(f"import os\nos.kill(os.getpid(), {int(signal.SIGKILL)})")
    with pytest.raises(UserError, match=r"ctranslate2 in float32 has died \(exit code -9\)"):
        worker.missing()
    with pytest.raises(UserError, match="has died"):
        worker.ask("load")


# The numbers, from engines that are played


@dataclass
class Actor:
    """Plays a Worker: its first token takes 2 s, and each later one what `steps` says of the round."""

    engine: str
    steps: tuple[float, ...] = (1.0,)
    dtype: str = "float32"
    differs: bool = False
    """In new token 1 of the first row."""
    top2_margin: float = 0.5
    turns: int = 0

    def ask(self, question: str, *args: Any) -> Any:
        if question == "peak_rss":
            return 5_000_000
        if question == "margin":
            assert args[0][4:] == [0]  # a prompt, and what both continue it with
            return self.top2_margin
        prompts, n = args
        tokens = [list(range(n)) for _ in prompts]
        if n == 1:
            return tokens, 2.0
        if self.differs:
            tokens[0][1] += 1
        step = self.steps[(self.turns - 1) % len(self.steps)]  # the first turn warms up
        self.turns += 1
        return tokens, 2.0 + (n - 1) * step


@pytest.fixture
def play(gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs the benchmark with these engines; returns what the command line did, and the rows."""

    def run(*actors: Actor, rounds: int = 1, batch_sizes: str = "[2]") -> Any:
        @contextmanager
        def loaded(*args: Any) -> Iterator[list[Measured]]:
            yield [Measured(actor, 0.25, "7.8.9") for actor in actors]

        monkeypatch.setattr("gpt2x.tasks.benchmark.loaded", loaded)
        monkeypatch.setattr("gpt2x.benchmark.measure._SETTLE", 0.0)
        monkeypatch.setattr("gpt2x.benchmark.machine._REPEATS", 1)
        result = gpt2x(*SMALL, f"task.rounds={rounds}", f"task.batch_sizes={batch_sizes}")
        return result, read_csv(run_dir(launch, "benchmark") / "benchmark.csv")

    return run


def test_numbers_are_medians_of_rounds_and_of_their_ratios(play: Callable[..., Any]) -> None:
    result, (ours, theirs) = play(Actor("gpt2x", (1, 2, 6)), Actor("transformers", (9, 4, 6)), rounds=3)
    assert result.code == 0, result.out
    expected = {
        "ms_per_step": 2000,
        "ms_per_step_p10": 1200,
        "ms_per_step_p90": 5200,
        "tokens_per_second": 2 * 4 / 8,
        "ratio_to_transformers": 14 / 8,  # the median of 29 / 5, 14 / 8 and 20 / 20
        "first_token_ms": 2000,
        "peak_rss_mb": 5,
        "load_seconds": 0.25,
        "same_tokens": 1,
    }
    assert {key: float(ours[key]) for key in expected} == pytest.approx(expected)
    assert theirs["ratio_to_transformers"] == "1.0"


def test_without_transformers_there_is_no_ratio(play: Callable[..., Any]) -> None:
    result, (ours,) = play(Actor("gpt2x"))
    assert result.code == 0, result.out
    assert (ours["ratio_to_transformers"], ours["same_tokens"]) == ("", "1.0")


@pytest.mark.parametrize(
    ("engine", "dtype", "margin", "code", "words"),
    [
        ("gpt2x", "float32", 0.5, 1, ["gpt2x float32, batch 2", "in 1 rows, 0 of them near ties", "token 1", "0.5"]),
        ("gpt2x", "float32", 1e-4, 0, ["gpt2x float32, batch 2", "in 1 rows, 1 of them near ties", "0.0001"]),
        ("ctranslate2", "float32", 0.5, 0, ["ctranslate2 float32, batch 2", "0 of them near ties"]),
        ("gpt2x", "bfloat16", 0.5, 0, []),
    ],
)
def test_other_tokens_than_transformers_are_said(
    play: Callable[..., Any], engine: str, dtype: str, margin: float, code: int, words: list[str]
) -> None:
    other = Actor(engine, dtype=dtype, differs=True)
    result, (row, _) = play(other, Actor("transformers", top2_margin=margin), rounds=2)
    assert result.code == code, result.out
    assert ("FAIL" in result.out) == (code == 1)
    assert_in(result.out, *words)
    assert ("other tokens" in result.out) == bool(words)
    assert float(row["same_tokens"]) == (0.25 + 1) / 2  # of the two rows


def test_every_batch_size_gets_its_rows_once(play: Callable[..., Any]) -> None:
    _, rows = play(Actor("transformers"), batch_sizes="[3,1,3]")
    assert [row["batch"] for row in rows] == ["3", "1"]


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
        (["dtype=bfloat16"], ["dtype=bfloat16", "task.dtypes=[bfloat16]"]),
        (["device=mps"], ["device=mps", "CPU"]),
        (["decode.top_k=5"], ["decode.top_k", "greedily"]),
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
