"""A hundred damaged checkpoints of all formats; tests/fuzz_checkpoints.py reads as many as one likes."""

from pathlib import Path

import pytest

from tests import fuzz_checkpoints


def test_damaged_checkpoints_are_loaded_or_refused(tmp_path: Path) -> None:
    counts, wrong = fuzz_checkpoints.fuzz(range(100), tmp_path)
    assert wrong == []
    assert counts["loaded"] > 10
    assert counts["refused"] > 10


KILL = "os.kill(os.getpid(), 9)"


@pytest.mark.parametrize("code", ["raise ValueError", "while True: pass", "bytearray(1 << 31)", KILL])
def test_what_must_not_happen_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(fuzz_checkpoints, "SECONDS", 1)
    monkeypatch.setattr(fuzz_checkpoints, "load_checkpoint", lambda *_: exec(f"import os\n{code}"))
    assert len(fuzz_checkpoints.fuzz(range(1), tmp_path)[1]) == 1
