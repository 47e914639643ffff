"""What tests share: the command line, in this process or its own, and tiny checkpoints to point it at."""

import copy
import csv
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # no test may reach a network; hub tests set their own endpoint
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the byte-for-byte tests are of the CPU
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_CBWR"] = "AUTO,STRICT"  # as a job sets it; here, torch may have multiplied before the first job

REPO = Path(__file__).resolve().parent.parent
NANO = REPO / "data" / "nano"


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def warnings(self) -> str:
        """stderr without its last line, where that names the folder of the run."""
        return re.sub(r"^results in .*\n\Z", "", self.err, flags=re.MULTILINE)

    def error(self) -> str:
        """The one line on stderr of a run that failed as it should."""
        assert self.code == 2, self
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("gpt2x: error: "), self.err
        return lines[0]


Cli = Callable[..., Result]
Refused = Callable[..., str]
FullDisk = Callable[[Path], None]


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty launch directory."""
    folder = tmp_path / "launch"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def gpt2x(launch: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """`gpt2x ARGS` in this process (torch is imported already, so it takes no seconds), in `launch`."""
    from gpt2x.cli.main import main

    def run(*args: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["gpt2x", *args])
        capfd.readouterr()
        try:
            code = main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture(autouse=True)
def root_logger_kept() -> Iterator[None]:
    """Hydra's `hydra.verbose` adds a handler to the root logger, whose stream is closed when the test ends."""
    level, handlers = logging.root.level, list(logging.root.handlers)
    yield
    logging.root.setLevel(level)
    logging.root.handlers[:] = handlers


@pytest.fixture
def refused(gpt2x: Cli, launch: Path) -> Refused:
    """Runs `gpt2x ARGS`, which must fail on the input and leave the launch directory empty; returns the line."""

    def run(*args: str) -> str:
        line = gpt2x(*args).error()
        assert list(launch.iterdir()) == []
        return line

    return run


@pytest.fixture(scope="session", autouse=True)
def composed_once() -> Iterator[None]:
    """Hydra composes equal settings once per process, and copies them then: this is most of what a command costs.

    Equal are: the overrides, and the YAML files of folders that a test may have written.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from omegaconf import open_dict

    compose, composed = ConfigLoaderImpl.load_configuration, {}

    def once(self: Any, *args: Any, **kwargs: Any) -> Any:
        search = self.config_search_path.get_path()
        folders = [Path(each.path.removeprefix("file://")) for each in search if each.path.startswith("file://")]
        written = [file for folder in folders if not folder.is_relative_to(REPO) for file in folder.rglob("*.yaml")]
        key = repr((search, args, kwargs, [(file, file.read_bytes()) for file in sorted(written)]))
        if "searchpath" in key:  # an override or a file can name more folders
            return compose(self, *args, **kwargs)
        if key not in composed:
            composed[key] = compose(self, *args, **kwargs)
        config = copy.deepcopy(composed[key])
        with open_dict(config):
            config.hydra.runtime.cwd = str(Path.cwd())
        return config

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConfigLoaderImpl, "load_configuration", once)
        yield


def interrupt_at(module: Any, function: str, call: int, patch: pytest.MonkeyPatch) -> None:
    """Ctrl-C at the n-th call of a module's function, before it does anything."""
    left, original = [call], getattr(module, function)

    def counted(*args: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return original(*args)

    patch.setattr(module, function, counted)


def assert_in(line: str, *words: str) -> None:
    assert [word for word in words if word not in line] == [], line


@pytest.fixture
def gpt2x_process(launch: Path) -> Cli:
    """`python -m gpt2x ARGS` in a process of its own, in `launch`."""

    def run(*args: str, **env: str) -> Result:
        done = subprocess.run(
            [sys.executable, "-m", "gpt2x", *args],
            cwd=launch,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    """Makes the disk full for one file, wherever it is written before it is moved to its place."""
    from gpt2x import paths

    def fill(full: Path) -> None:
        def temporary(path: Path) -> Path:
            file = path.with_name(f".{path.name}.x.tmp")
            if path.absolute() == full:
                file.symlink_to("/dev/full")
            return file

        monkeypatch.setattr(paths, "_temporary", temporary)

    return fill


def read_csv(path: Path) -> list[dict[str, Any]]:
    """Rows of a CSV, all values as text."""
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def run_dir(launch: Path, task: str) -> Path:
    """The only run folder of a task below the launch directory."""
    (folder,) = (launch / "runs" / task).iterdir()
    return folder


def tiny_hf(**settings: Any) -> Any:
    """A tiny random transformers GPT-2 in eval mode: 2 layers, width 32, 4 heads, 64 positions, 300 tokens."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(settings.pop("seed", 0))
    sizes = {"n_layer": 2, "n_embd": 32, "n_head": 4, "n_positions": 64, "vocab_size": 300}
    special = {"bos_token_id": None, "eos_token_id": None}
    return GPT2LMHeadModel(GPT2Config(**(sizes | special | settings))).eval()


def save_distinct(folder: Path, tokenizer: Path) -> None:
    """Writes tiny_hf() with noise on every parameter (no bias is 0, no norm is 1), and the tokenizer of a folder."""
    import torch

    model = tiny_hf(bos_token_id=0, eos_token_id=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    for name in ("vocab.json", "merges.txt"):
        (folder / name).write_bytes((tokenizer / name).read_bytes())


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face directory that transformers wrote: tiny random weights, and a tokenizer trained on a few lines."""
    from gpt2x.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("tiny")
    text = " ".join(f"line {i} says: to be, or not to be, that's question {i * i}.\n" for i in range(200))
    train_tokenizer(text, 300).save(folder)
    tiny_hf(eos_token_id=0, bos_token_id=0).save_pretrained(folder)
    return folder
