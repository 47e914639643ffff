"""deterministic=true: the same bytes at any batch size, with lookup and without, for any number of threads."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.conftest import Cli, assert_in

PROMPTS = {"float32": 1000, "bfloat16": 200, "float16": 200, "int8": 200}
BATCH_SIZES = (1, 3, 8, 20, 64)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tests share the cores, and threads that wait for each other would take most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def generated(gpt2x: Cli, launch: Path, *args: str) -> bytes:
    folder = launch / "out"
    result = gpt2x("task=generate", "deterministic=true", "prompts_file=prompts.txt", f"hydra.run.dir={folder}", *args)
    assert result.code == 0, result.err
    content = (folder / "generations.csv").read_bytes()
    for file in folder.iterdir():
        file.unlink()
    return content


@pytest.mark.parametrize("dtype", PROMPTS)
def test_batch_sizes(gpt2x: Cli, launch: Path, one_thread: None, dtype: str) -> None:
    lines = [
        f"{'The king and the ' * (number % 4)}{number}th night of {number % 7}\n" for number in range(PROMPTS[dtype])
    ]
    (launch / "prompts.txt").write_text("".join(lines), encoding="utf-8")
    settings = (f"dtype={dtype}", "decode.max_new_tokens=2", "decode.top_p=0.9")
    found = {generated(gpt2x, launch, *settings, f"batch_size={size}") for size in BATCH_SIZES}
    assert len(found) == 1
    assert found.pop().count(b"\n") >= PROMPTS[dtype]


def test_lookup_threads_and_beams(gpt2x: Cli, launch: Path) -> None:
    (launch / "prompts.txt").write_text("To be or not to be, to be or not to be, to be\nWhat\n" * 2, encoding="utf-8")
    greedy = ("decode=greedy", "decode.max_new_tokens=16")
    found = {generated(gpt2x, launch, *greedy, "decode.lookup=true", f"batch_size={size}") for size in (1, 6)}
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.add(generated(gpt2x, launch, *greedy))
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 1
    beams = {
        generated(gpt2x, launch, "decode.num_beams=3", "decode.max_new_tokens=4", f"batch_size={size}")
        for size in (3, 18)
    }
    assert len(beams) == 1


def test_where_it_is_not_possible(gpt2x: Cli, launch: Path) -> None:
    line = gpt2x("task=generate", "deterministic=true", "dtype=float64").error()
    assert_in(line, "deterministic=true", "float64", "dtype=float32")
    assert_in(gpt2x("task=validate", "deterministic=true").error(), "deterministic", "task=generate")
