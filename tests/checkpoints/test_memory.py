"""The memory that reading a checkpoint takes, and how often a sweep reads it."""

import ctypes
import os
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt2x.checkpoints.load import read_weights
from gpt2x.config.model import ModelConfig
from gpt2x.config.weights import WeightsConfig
from tests.checkpoints import writers
from tests.conftest import NANO, Cli, tiny_hf

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
SIZES = {"n_layer": 4, "n_embd": 512, "n_head": 8, "n_positions": 256, "vocab_size": 20_000}  # 92 MB, 41 of them wte
MOST = 1.15  # of the size in float32


def _pickle(file: Path, hf: Any, **options: Any) -> None:
    torch.save(hf.state_dict(), file, **options)


WRITERS: dict[str, tuple[str, Callable[[Path, Any], Any]]] = {
    "safetensors": ("model.safetensors", lambda file, hf: hf.save_pretrained(file.parent)),
    "pickle": ("model.pt", _pickle),
    "old pickle": ("model.pt", lambda file, hf: _pickle(file, hf, _use_new_zipfile_serialization=False)),
    "llm.c": ("model.bin", writers.write_llmc),
    "GGUF": ("model.gguf", lambda file, hf: writers.write_gguf(file, hf, "F32")),
    "GGUF Q8_0": ("model.gguf", lambda file, hf: writers.write_gguf(file, hf, "Q8_0")),
    "Flax": ("flax_model.msgpack", writers.write_flax),
    "Keras": ("tf_model.h5", writers.write_keras),
    "OpenAI": ("model.ckpt.index", lambda file, hf: writers.write_openai(file.parent, hf)),
}


@pytest.fixture(scope="module")
def models() -> tuple[Any, Any]:
    """A tiny one, and one that is large enough for its memory to be seen."""
    return tiny_hf(), tiny_hf(**SIZES)


@pytest.mark.parametrize("format", WRITERS)
def test_a_file_is_read_without_a_second_copy(tmp_path: Path, models: tuple[Any, Any], format: str) -> None:
    name, write = WRITERS[format]
    paths = []
    for folder, hf in zip((tmp_path / "tiny", tmp_path / "large"), models, strict=True):
        folder.mkdir()
        write(folder / name, hf)
        hf.config.save_pretrained(folder)
        paths.append(folder / name)
    large = models[1]
    size = 4 * sum(parameter.numel() for parameter in large.parameters())
    assert 0.5 * size < peak(*paths) < MOST * size
    for path in paths:  # pytest keeps the folders of the last sessions
        path.unlink()


def peak(tiny: Path, large: Path) -> int:
    """The bytes by which the memory of a process grows that reads, checks and measures the large file."""
    source, target = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _inspect(tiny)  # imports what the format needs
            ctypes.CDLL(None).malloc_trim(0)  # what was freed would be used again unseen
            Path("/proc/self/clear_refs").write_text("5")  # the peak is that from now on
            before = _status("VmRSS")
            weights = _inspect(large)
            os.write(target, struct.pack("q", _status("VmHWM") - before))
            del weights
        finally:
            os._exit(0)
    os.close(target)
    found = os.read(source, 8)
    os.waitpid(child, 0)
    os.close(source)
    return int(struct.unpack("q", found)[0])


def _inspect(path: Path) -> Any:
    return read_weights(ModelConfig("auto"), WeightsConfig("local", path=str(path)))


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))


def test_a_sweep_reads_its_weights_once(gpt2x: Cli, launch: Path) -> None:
    folder = launch / "model"
    folder.mkdir()
    for file in NANO.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    args = ["task=generate", "decode.max_new_tokens=1", f"weights.path={folder}"]
    with Opened(folder) as once:
        assert gpt2x(*args, "seed=99").code == 0
    (folder / "model.safetensors").write_bytes((NANO / "model.safetensors").read_bytes())  # another stamp
    with Opened(folder) as ten_times:
        assert gpt2x("-m", *args, "seed=range(0,10)").code == 0
    assert once.counts["model.safetensors"] > 0
    assert ten_times.counts["model.safetensors"] <= once.counts["model.safetensors"]


class Opened:
    """Counts how often the system opens each file of a folder, whichever library does it."""

    _OPEN, _CLOSE = 0x20, 0x10  # with the closes, no two events that follow each other are equal and merged

    def __init__(self, folder: Path) -> None:
        self.counts: Counter[str] = Counter()
        self._folder = folder

    def __enter__(self) -> "Opened":
        libc = ctypes.CDLL(None)
        self._events = libc.inotify_init1(os.O_NONBLOCK)
        libc.inotify_add_watch(self._events, os.fsencode(self._folder), self._OPEN | self._CLOSE)
        return self

    def __exit__(self, *error: object) -> None:
        events = b"".join(iter(lambda: self._read(), b""))
        os.close(self._events)
        while events:
            _, mask, _, length = struct.unpack("iIII", events[:16])
            if mask & self._OPEN:
                self.counts[events[16 : 16 + length].rstrip(b"\0").decode()] += 1
            events = events[16 + length :]

    def _read(self) -> bytes:
        try:
            return os.read(self._events, 1 << 20)
        except BlockingIOError:
            return b""
