"""Digests: weights by content, computed once per process, without torch."""

import hashlib
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from gpt2x.checkpoints import digest
from gpt2x.checkpoints.digest import begin_digesting, file_digests, weight_digests
from gpt2x.config.model import ModelConfig
from gpt2x.config.weights import WeightsConfig
from gpt2x.errors import UserError
from tests.conftest import NANO, Cli


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are opened, as they are opened."""
    opened: list[str] = []

    def recorded(self: Path, *args: Any, original: Any = Path.open, **options: Any) -> Any:
        opened.append(self.name)
        return original(self, *args, **options)

    monkeypatch.setattr(Path, "open", recorded)
    return opened


def test_files_of_all_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "_BLOCK", 4)
    contents = {f"{n}.bin": bytes(range(n)) for n in (0, 1, 4, 8, 11)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    found = file_digests(tmp_path / name for name in contents)
    assert found == {name: sha256(content) for name, content in contents.items()}


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, reads: list[str]) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(b"one")
    reads.clear()
    assert file_digests([file]) == file_digests([file]) == {"weights.bin": sha256(b"one")}
    assert reads == ["weights.bin"]
    time = file.stat().st_mtime_ns
    file.write_bytes(b"three")
    os.utime(file, ns=(time, time))  # the same time, another size
    assert file_digests([file]) == {"weights.bin": sha256(b"three")}
    file.write_bytes(b"eight")
    os.utime(file, ns=(time + 1, time + 1))  # the same size, another time
    assert file_digests([file]) == {"weights.bin": sha256(b"eight")}


def test_the_same_name_in_another_launch_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        file = tmp_path / name / "w.bin"
        file.write_bytes(name.encode())
        os.utime(file, ns=(0, 0))
        monkeypatch.chdir(tmp_path / name)
        assert file_digests([Path("w.bin")]) == {"w.bin": sha256(name.encode())}


def test_a_checkpoint_by_the_files_of_its_tensors(tmp_path: Path) -> None:
    assert weight_digests(None) == {}
    expected = {"model.safetensors": sha256((NANO / "model.safetensors").read_bytes())}
    assert weight_digests(NANO) == weight_digests(NANO / "model.safetensors") == expected
    with pytest.raises(UserError, match=r"none of model\.safetensors"):
        weight_digests(tmp_path)


def local(path: Path) -> WeightsConfig:
    return WeightsConfig(source="local", path=str(path))


def test_digests_are_known_once_the_thread_ends(tmp_path: Path, reads: list[str]) -> None:
    file = shutil.copy(NANO / "model.safetensors", tmp_path)
    begin_digesting(ModelConfig(name="auto"), local(Path(file))).join()
    assert reads == ["model.safetensors"]
    weight_digests(Path(file))
    assert reads == ["model.safetensors"]


def test_only_local_weights_are_digested_ahead(tmp_path: Path, reads: list[str]) -> None:
    file = shutil.copy(NANO / "model.safetensors", tmp_path)
    begin_digesting(ModelConfig(name="nano"), WeightsConfig(source="random")).join()
    begin_digesting(ModelConfig(name="gpt2"), WeightsConfig(source="auto")).join()  # which would be on the hub
    assert reads == []
    begin_digesting(ModelConfig(name="auto"), WeightsConfig(source="auto", path=str(file))).join()
    assert reads == ["model.safetensors"]


def test_errors_are_left_to_the_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    for path in (tmp_path / "none.pt", tmp_path):
        begin_digesting(ModelConfig(name="auto"), local(path)).join()
    assert raised == []


def test_no_torch_is_imported() -> None:
    program = "import sys; import gpt2x.checkpoints.digest; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False"]


def test_all_checksums_are_known_before_a_task_runs(gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nothing is computed in the background beside what task=benchmark measures."""
    digest._sha256.cache_clear()
    seen = []

    def look(config: Any, task: Any, run_dir: Path) -> None:
        begun = digest._sha256.cache_info().misses
        digest.checkpoint_digests(NANO)
        seen.append((begun, digest._sha256.cache_info().misses - begun, threading.active_count()))
        raise KeyboardInterrupt

    threads = threading.active_count()
    monkeypatch.setattr("gpt2x.tasks.benchmark.run", look)
    assert gpt2x("task=benchmark").code == 130
    assert seen == [(5, 0, threads)]
