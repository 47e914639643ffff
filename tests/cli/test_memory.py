"""Too little memory: one line that says what to make smaller, exit code 2, and in a sweep the status `skipped`."""

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt2x import memory
from gpt2x.checkpoints.formats.torch_pickle import TorchPickle
from gpt2x.errors import UserError
from gpt2x.memory import available_memory, is_out_of_memory
from gpt2x.training.optimizer import make_optimizer
from gpt2x.training.state import load_state
from tests.conftest import NANO, Cli, Result, assert_in, read_csv

FAST = ("task=generate", "decode.max_new_tokens=1")
WHAT = {
    "validate": ("task.stages=[logits]",),
    "generate": ("decode.max_new_tokens=1",),
    "train": ("model=nano", "task.data=text", "task.steps=1"),
    "benchmark": ("task.engines=[gpt2x]",),
}
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v is for Linux")


def limited(launch: Path, megabytes: int, *args: str) -> Result:
    """`python -m gpt2x ARGS` in `launch`, with this much address space."""
    command = f'ulimit -v {megabytes * 1000}; exec "$@"'
    done = subprocess.run(
        ["bash", "-c", command, "bash", sys.executable, "-m", "gpt2x", *args],
        cwd=launch,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("task", WHAT)
@pytest.mark.parametrize("megabytes", [200, 500])
def test_torch_is_not_begun_where_it_does_not_fit(launch: Path, task: str, megabytes: int) -> None:
    (launch / "text").write_text("to be, or not to be. " * 1000)
    line = limited(launch, megabytes, f"task={task}", *WHAT[task]).error()
    assert_in(line, "torch does not fit in the", "ulimit")
    assert [file.name for file in launch.iterdir()] == ["text"]


@pytest.mark.parametrize(
    ("megabytes", "args", "words"),
    [
        (
            1000,
            ("task=generate", "model=gpt2-xl", "weights=random"),
            ["model=gpt2-xl with random weights needs 6.3 GB"],
        ),
        (1000, ("decode.max_new_tokens=1",), ["transformers does not fit in the"]),
        (900, ("task=train", "model=nano", "task.data=text"), ["training does not fit in the"]),
        (2500, ("task=train", "model=gpt2-xl", "task.data=text"), ["training 1,557,611,200 parameters needs 25.0 GB"]),
    ],
    ids=["generate", "validate", "train", "train xl"],
)
def test_what_does_not_fit_is_refused_before_work(
    launch: Path, megabytes: int, args: tuple[str, ...], words: list[str]
) -> None:
    (launch / "text").write_text("to be, or not to be. " * 1000)
    assert_in(limited(launch, megabytes, *args).error(), *words)
    assert [file.name for file in launch.iterdir()] == ["text"]


def test_what_the_estimate_cannot_know(launch: Path) -> None:
    """The activations of 100,000 tokens per step, for which there is no estimate."""
    (launch / "text").write_text("to be, or not to be. " * 1000)
    train = ("task=train", "model=nano", "model.vocab_size=260", "task.data=text", "task.batch_size=100")
    line = limited(launch, 1700, *train, "model.n_positions=1000").error()
    assert_in(line, "task=train does not fit in memory", "task.batch_size", "model.n_positions")
    assert [file.name for file in launch.iterdir()] == ["text"]


def test_the_limit_of_the_shell_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    import psutil

    monkeypatch.setattr(resource, "getrlimit", lambda kind: (psutil.Process().memory_info().vms + 10**8, -1))
    assert available_memory() == pytest.approx(10**8, abs=10**7)


ERRORS = [
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1"),
    RuntimeError("could not create a primitive"),
    RuntimeError("could not create a memory object"),
    RuntimeError("unable to mmap 5 bytes from file <x>: Cannot allocate memory (12)"),
    RuntimeError("std::bad_alloc"),
    RuntimeError("can't start new thread"),
    ImportError("libx.so: failed to map segment from shared object"),
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_every_library_s_error_skips_the_job(
    gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(config: Any, task: Any, run_dir: Path) -> None:
        raise error

    monkeypatch.setattr("gpt2x.tasks.generate.run", fail)
    assert_in(gpt2x(*FAST).error(), "does not fit in memory; use a smaller model, batch_size or decode.max_new_tokens")
    assert gpt2x("-m", *FAST, "seed=1", "hydra.sweep.dir=out").code == 0
    assert [row["status"] for row in read_csv(launch / "out" / "jobs.csv")] == ["skipped"]


def test_other_errors_are_bugs() -> None:
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(FileNotFoundError(errno.ENOENT, "No such file"))


def test_where_nothing_is_left_any_error_is_for_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_left_by_ulimit", lambda: 1000)
    assert is_out_of_memory(SystemError("error return without exception set"))


def test_damage_is_not_the_name_for_lack_of_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from gpt2x.config.tasks.train import TrainTask
    from gpt2x.model.config import GPT2Config
    from gpt2x.model.gpt2 import GPT2
    from gpt2x.parity.subject.code import subject_code
    from gpt2x.tokenizer import load_tokenizer

    def fail(*args: Any, **options: Any) -> None:
        raise MemoryError

    model = GPT2(GPT2Config(vocab_size=10, n_positions=4, n_embd=4, n_layer=1, n_head=1))
    settings = TrainTask(
        data="x", steps=1, batch_size=1, lr=1.0, min_lr=0.0, warmup_steps=0, weight_decay=0.0, beta2=0.9, grad_clip=1.0,
        dropout=0.0, eval_every=1, save_dtype="float32",
    )  # fmt: skip
    state = tmp_path / "state.pt"
    torch.save({}, state)
    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(UserError, match="truncated"):  # it would fit: the file declares what it does not have
        TorchPickle().read(state)
    monkeypatch.setattr("gpt2x.checkpoints.formats.torch_pickle.available_memory", lambda: 1000)
    with pytest.raises(MemoryError):
        TorchPickle().read(state)
    with pytest.raises(MemoryError):
        load_state(state, model, make_optimizer(model, settings))
    monkeypatch.setattr("tokenizers.models.BPE.from_file", fail)
    with pytest.raises(MemoryError):
        load_tokenizer(NANO)
    with pytest.raises(MemoryError), subject_code():
        fail()
