"""task=benchmark: engines side by side, and what happens if one fails; never that one is faster than another."""

import json
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

from gpt2x.benchmark.engines import REGISTRY, Converter, Variant
from gpt2x.benchmark.engines import gpt2x as our_engine
from gpt2x.benchmark.engines import transformers as their_engine
from gpt2x.benchmark.measure import draw_prompts
from gpt2x.benchmark.measured import Measured
from gpt2x.benchmark.participants import Participant, Participants
from gpt2x.benchmark.worker import EngineError, Worker
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
        workers.append(Worker(Variant("ctranslate2", dtype), tmp_path, 3))
        return workers[-1]

    yield run
    for worker in workers:
        worker.close()


def test_a_worker_converts_loads_and_generates(start: Callable[..., Worker], tmp_path: Path) -> None:
    ballast = bytearray(b"x" * 500_000_000)  # of this process: not to be counted
    worker = start(STUB)
    del ballast
    assert worker.unavailable() is None
    assert worker.version() == "1.2.3"
    assert worker.has_format()
    worker.convert()
    assert (tmp_path / "ctranslate2-float32" / "vocabulary.json").is_file()
    assert worker.load() > 0
    tokens, seconds = worker.generate([[0, 1, 1], [1, 0, 0]], 2)
    assert tokens == [[3, 3], [3, 3]]
    assert seconds > 0
    assert 5e6 < worker.peak_rss() < 400e6
    with pytest.raises(EngineError, match=r"^failed while it generated: IndexError: .* \(ctranslate2.py, line \d+\)$"):
        worker.generate([[2]], 1)
    assert worker.generate([[1]], 1)[0] == [[1]]  # an exception does not end the process


@pytest.mark.parametrize(
    ("source", "dtype", "reason"),
    [
        ("raise ImportError('no such thing')", "float32", "not installed (no such thing)"),
        (STUB, "bfloat16", "has no bfloat16 on this machine"),
    ],
)
def test_what_cannot_take_part_says_why(start: Callable[..., Worker], source: str, dtype: str, reason: str) -> None:
    assert start(source, dtype).unavailable() == reason


@pytest.mark.parametrize(
    "source", ["raise OSError('libfoo.so: bad magic')", "def get_supported_compute_types(_): 1 / 0"]
)
def test_an_engine_that_fails_to_import_has_failed(start: Callable[..., Worker], source: str) -> None:
    with pytest.raises(EngineError, match=r"^failed while it was imported: .*Error: "):
        start(source).unavailable()


def test_a_worker_that_dies_is_reported(start: Callable[..., Worker]) -> None:
    worker = start(f"import os\nos.kill(os.getpid(), {int(signal.SIGKILL)})")
    with pytest.raises(EngineError, match=r"^its process has died while it was imported \(exit code -9\)"):
        worker.unavailable()
    with pytest.raises(EngineError, match="has died while it loaded the checkpoint"):
        worker.load()
    worker.close()


# An engine that fails, beside one that does not

DIE = f"__import__('os').kill(__import__('os').getpid(), {int(signal.SIGKILL)})"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (("__version__", "raise OSError('bad magic')\n__version__"), ["while it was imported: OSError: bad magic"]),
        (("Path(folder).mkdir()", "raise ValueError"), ["while it converted the checkpoint: ValueError"]),
        (("assert options", f"{DIE}; assert options"), ["died while it loaded the checkpoint (exit code -9)"]),
        (("return [Simple", "raise ValueError('no') \n        return [Simple"), ["while it generated: ValueError: no"]),
        (
            ("return [Simple", f"if len(prompts) == 2: {DIE}\n        return [Simple"),
            ["died while it generated (exit code -9), perhaps for lack of memory", "task.batch_sizes"],
        ),
    ],
    ids=["import", "convert", "load", "generate", "death at the second batch size"],
)
def test_an_engine_that_fails_is_left_out(
    gpt2x: Cli,
    launch: Path,
    at_once: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: tuple[str, str],
    words: list[str],
) -> None:
    assert STUB.count(fault[0]) == 1
    (tmp_path / "stub").mkdir()
    source = STUB.replace(*fault).replace('options["intra_threads"] == 3', 'options["intra_threads"] > 0')
    (tmp_path / "stub" / "ctranslate2.py").write_text(source.replace('["a", "b"]', str(["a"] * 1024).replace("'", '"')))
    monkeypatch.syspath_prepend(tmp_path / "stub")
    result = gpt2x(*SMALL, "task.engines=[ctranslate2,gpt2x]")
    assert result.code == 1, result.out + result.err
    (line,) = [line for line in result.out.splitlines() if line.startswith("FAIL")]
    assert_in(line, "FAIL  ctranslate2 float32: left out", *words)
    assert "Traceback" not in result.out + result.err
    rows = read_csv(run_dir(launch, "benchmark") / "benchmark.csv")
    assert [(row["batch"], row["engine"]) for row in rows] == [("1", "gpt2x"), ("2", "gpt2x")]


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
    dies: str = ""
    """The method in which its process dies."""
    turns: int = 0

    @property
    def variant(self) -> Variant:
        return Variant(self.engine, self.dtype)

    def peak_rss(self) -> int:
        self.maybe_die("peak_rss")
        return 5_000_000

    def margin(self, ids: list[int]) -> float:
        self.maybe_die("margin")
        assert ids[4:] == [0]  # a prompt, and the token that both continue it with
        return self.top2_margin

    def maybe_die(self, method: str) -> None:
        if method == self.dies:
            raise EngineError("has died")

    def close(self) -> None:
        pass

    def generate(self, prompts: list[list[int]], n: int) -> tuple[list[list[int]], float]:
        tokens = [list(range(n)) for _ in prompts]
        if n == 1:
            return tokens, 2.0
        if self.turns == 2:
            self.maybe_die("generate")
        if self.differs:
            tokens[0][1] += 1
        step = self.steps[(self.turns - 1) % len(self.steps)]  # the first turn warms up
        self.turns += 1
        return tokens, 2.0 + (n - 1) * step


@pytest.fixture
def play(gpt2x: Cli, launch: Path, at_once: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs the benchmark with these engines; returns what the command line did, and the rows."""

    def run(*actors: Actor, rounds: int = 1, batch_sizes: str = "[2]") -> Any:
        @contextmanager
        def loaded(*args: Any) -> Iterator[Participants]:
            yield Participants([Participant(actor, Measured(actor.variant, 0.25, "7.8.9")) for actor in actors])

        monkeypatch.setattr("gpt2x.benchmark.benchmark.loaded", loaded)
        result = gpt2x(*SMALL, f"task.rounds={rounds}", f"task.batch_sizes={batch_sizes}")
        rows = [row for file in launch.rglob("benchmark.csv") for row in read_csv(file)]
        return result, rows

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


@pytest.mark.parametrize("method", ["generate", "margin", "peak_rss"])
def test_without_its_baseline_the_rest_is_compared_with_the_next(play: Callable[..., Any], method: str) -> None:
    actors = Actor("gpt2x", differs=True), Actor("ctranslate2"), Actor("transformers", dies=method)
    result, rows = play(*actors, rounds=2)
    assert result.code == 1
    assert "FAIL  transformers float32: left out, has died" in result.out
    assert [(row["engine"], row["ratio_to_transformers"]) for row in rows] == [("gpt2x", ""), ("ctranslate2", "")]
    assert [float(row["same_tokens"]) for row in rows] == [1, (0.25 + 1) / 2]
    assert_in(result.out, "ctranslate2 float32, batch 2: other tokens in 1 rows")


def test_where_all_engines_fail_there_are_no_results(play: Callable[..., Any], launch: Path) -> None:
    result, rows = play(Actor("gpt2x", dies="generate"), rounds=2)
    assert_in(result.error(), "task.engines: none of them could be measured", "gpt2x float32: has died")
    assert rows == []
    assert list(launch.rglob("*.csv")) == []


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
