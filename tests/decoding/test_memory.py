"""Too little memory: a batch for which it is short is halved, and no text is lost, doubled or changed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt2x.decoding import batches
from gpt2x.decoding.batches import automatic_batch_size
from gpt2x.model.config import GPT2Config
from gpt2x.model.gpt2 import GPT2
from tests.conftest import Cli, assert_in, read_csv

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
]
ARGS = ("task=generate", "decode.num_samples=3", "decode.max_new_tokens=8", "decode.logprobs=1")


def fail_above(monkeypatch: pytest.MonkeyPatch, rows: int, error: Exception, after: int = 0) -> list[int]:
    """Memory for so many rows; else an error when they are set aside, or in the n-th pass. The rows tried."""
    tried: list[int] = []
    left = [after]

    def new_cache(self: GPT2, n: int, capacity: int, original: Any = GPT2.new_cache) -> Any:
        tried.append(n)
        if n > rows and not after:
            raise error
        return original(self, n, capacity)

    def forward(self: GPT2, input_ids: Any, cache: Any = None, original: Any = GPT2.forward) -> Any:
        left[0] -= len(input_ids) > rows
        if len(input_ids) > rows and left[0] < 0:
            raise error
        return original(self, input_ids, cache)

    monkeypatch.setattr(GPT2, "new_cache", new_cache)
    if after:
        monkeypatch.setattr(GPT2, "forward", forward)
    return tried


@pytest.fixture
def job(gpt2x: Cli, launch: Path, tiny_dir: Path) -> Callable[..., Any]:
    """20 prompts x 3 samples through the command line."""
    lines = [f"line {i} says: " + "to be, " * (i * 7 % 5) for i in range(20)]
    (launch / "p.txt").write_text("\n".join(lines))
    files = (f"weights.path={tiny_dir}", "prompts_file=p.txt")
    return lambda *args: gpt2x(*ARGS, *files, *([] if "-m" in args else ["hydra.run.dir=out"]), *args)


def rows_of(folder: Path, name: str, *columns: str) -> list[tuple[str, ...]]:
    return [tuple(row[column] for column in columns) for row in read_csv(folder / name)]


@pytest.mark.parametrize("error", ERRORS, ids=["gpu", "cpu"])
@pytest.mark.parametrize(("rows", "after"), [(8, 0), (3, 0), (1, 0), (4, 1), (4, 20), (2, 9)])
def test_a_batch_for_which_memory_is_short_is_halved(
    job: Callable[..., Any], launch: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, rows: int, after: int
) -> None:
    assert job("hydra.run.dir=whole", "batch_size=16").code == 0
    tried = fail_above(monkeypatch, rows, error, after)
    result = job("batch_size=16")
    assert (result.code, result.err) == (0, "")
    columns = ("prompt_id", "sample", "completion", "n_new_tokens", "finish_reason")
    for name, kept in (("generations.csv", columns), ("tokens.csv", ("prompt_id", "sample", "step", "token_id"))):
        assert rows_of(launch / "out", name, *kept) == rows_of(launch / "whole", name, *kept)
    sizes = list(dict.fromkeys(tried))
    assert sizes[0] == 16
    assert min(sizes) <= rows
    assert all(size in (16, 8, 4, 2, 1) for size in sizes)
    assert not (launch / "out" / "state.json").exists()


def test_memory_short_twice_after_rows_were_written_doubles_none(
    job: Callable[..., Any], launch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpt2x.decoding import run as decoding

    def fails(model: Any, requests: Any, sampler: Any, stop: Any, size: int, *args: Any) -> Any:
        for n, found in enumerate(original(model, requests, sampler, stop, size, *args)):
            if n == 2 and size > 4:
                raise ERRORS[0]
            yield found

    original = decoding.generate
    monkeypatch.setattr(decoding, "generate", fails)
    assert job("batch_size=16").code == 0
    assert rows_of(launch / "out", "generations.csv", "prompt_id", "sample") == [
        (str(prompt), str(sample)) for prompt in range(20) for sample in range(3)
    ]


@pytest.mark.parametrize("error", ERRORS, ids=["gpu", "cpu"])
def test_not_even_one_text_fits(
    job: Callable[..., Any], launch: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    tried = fail_above(monkeypatch, 0, error)
    assert_in(job("batch_size=8").error(), "not even one text", "use a smaller decode.max_new_tokens")
    assert tried == [8, 4, 2, 1]
    assert not (launch / "out").exists()


def test_a_sweep_goes_on_without_it(job: Callable[..., Any], launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_above(monkeypatch, 0, ERRORS[1])
    result = job("-m", "hydra.sweep.dir=s", "seed=1,2")
    assert result.code == 0
    assert "Traceback" not in result.err
    assert rows_of(launch / "s", "jobs.csv", "status") == [("skipped",)] * 2


def test_other_errors_are_not_of_memory(job: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    fail_above(monkeypatch, 0, RuntimeError("expected scalar type Double but found Float"))
    result = job()
    assert result.code == 70
    assert "RuntimeError: expected scalar type" in result.err


def test_the_automatic_batch_size_follows_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = GPT2(GPT2Config(300, 64, 32, 2, 4)).double()
    sizes = []
    for free in (10**15, 10**8, 10**7, 10**6, 10**5, 10, 0):
        monkeypatch.setattr(batches, "available_memory", lambda free=free: free)
        size = automatic_batch_size(model, 64)
        assert size & (size - 1) == 0
        assert size == 1 or size * 2 * 2 * 32 * 64 * 8 < free / 2  # what the caches take of it
        assert size >= automatic_batch_size(model, 64 * 8)
        sizes.append(size)
    assert (sizes[0], sizes[-1]) == (64, 1)
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 3


def test_the_automatic_batch_size_is_used(job: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpt2x.decoding.parts.automatic_batch_size", lambda model, capacity: 4)
    tried = fail_above(monkeypatch, 99, ERRORS[0])
    assert job().code == 0
    assert set(tried) == {4}
