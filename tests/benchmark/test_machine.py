"""The lower bounds of the machine: what is read to measure them, never how fast."""

import pytest

from gpt2x.benchmark import machine
from gpt2x.model.config import GPT2Config
from gpt2x.model.gpt2 import GPT2

TINY = GPT2Config(n_layer=2, n_embd=32, n_head=4, n_positions=64, vocab_size=300)


def test_the_bandwidth_is_measured_on_every_matrix_of_a_step() -> None:
    shapes = [tuple(matrix.shape) for matrix in machine._matrices(GPT2(TINY))]
    assert shapes == [(96, 32), (32, 32), (128, 32), (32, 128)] * 2 + [(300, 32)]


def test_of_a_large_model_as_many_matrices_as_fit_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_MOST_BYTES", 4 * (96 * 32 + 32 * 32))
    assert [tuple(matrix.shape) for matrix in machine._matrices(GPT2(TINY))] == [(96, 32), (32, 32)]
    monkeypatch.setattr(machine, "_MOST_BYTES", 1)
    assert [tuple(matrix.shape) for matrix in machine._matrices(GPT2(TINY))] == [(96, 32)]


def test_the_fastest_of_the_turns_counts_and_the_first_turn_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0, 1, 0, 1, 0, 7, 0, 5, 0, 9, 0, 6])
    monkeypatch.setattr(machine, "_REPEATS", 2)
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(times))
    assert machine._least_seconds(lambda: None, lambda: None) == 5
