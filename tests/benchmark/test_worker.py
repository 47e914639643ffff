"""Engines in processes of their own, around a stub of ctranslate2: their answers, and what happens if one fails."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpt2x.benchmark.engines import Variant
from gpt2x.benchmark.worker import EngineError, Worker
from tests.benchmark.test_benchmark import SMALL, at_once
from tests.conftest import Cli, assert_in, read_csv, run_dir

__all__ = ["at_once"]

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
    assert worker.first_seconds([[0, 1, 1]]) > 0
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
