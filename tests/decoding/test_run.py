"""The generation run as a library: rows and progress, without console output and without files."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt2x.checkpoints.load import Checkpoint, load_checkpoint
from gpt2x.config.decode import DecodeConfig
from gpt2x.config.model import ModelConfig
from gpt2x.config.weights import WeightsConfig
from gpt2x.decoding import run as runs
from gpt2x.decoding.parts import MemoryStore
from gpt2x.decoding.rows import GenerationRow, TokenRow
from gpt2x.decoding.run import Progress, generate_samples
from gpt2x.decoding.samples import Sample, samples_of
from gpt2x.errors import UserError
from gpt2x.prompts import Prompt
from gpt2x.runs.tables import read_rows
from tests.conftest import Cli

TEXTS = ["line 3 says: to be, or not to be", "or", "that's question 49.\nline 8", "line", "to be", "q", "1 says"]
DECODE = DecodeConfig(num_samples=3, max_new_tokens=6, logprobs=2, top_p=0.9)


@pytest.fixture
def checkpoint(tiny_dir: Path) -> Checkpoint:
    weights = WeightsConfig(source="local", path=str(tiny_dir))
    return load_checkpoint(ModelConfig(name="auto"), weights, torch.float32, torch.device("cpu"))


@pytest.fixture
def samples(checkpoint: Checkpoint) -> list[Sample]:
    return samples_of(checkpoint, [Prompt(str(i), text) for i, text in enumerate(TEXTS)], DECODE)


def test_the_rows_are_those_of_the_task(
    gpt2x: Cli, launch: Path, checkpoint: Checkpoint, samples: list[Sample], capfd: pytest.CaptureFixture[str]
) -> None:
    generated = generate_samples(checkpoint, samples, DECODE, 5, 4)
    assert capfd.readouterr() == ("", "")
    assert list(launch.iterdir()) == []
    assert generated.n_new_tokens == sum(row.n_new_tokens for row in generated.generations)
    (launch / "p.csv").write_text("prompt\n" + "\n".join(f'"{text}"' for text in TEXTS) + "\n")
    settings = ("decode.num_samples=3", "decode.max_new_tokens=6", "decode.logprobs=2", "decode.top_p=0.9")
    where = (f"weights.path={checkpoint.path}", "prompts_file=p.csv", "hydra.run.dir=out")
    assert gpt2x("task=generate", *where, *settings, "seed=5", "batch_size=4").code == 0
    for name, row_type, rows in (
        ("generations.csv", GenerationRow, generated.generations),
        ("tokens.csv", TokenRow, generated.tokens),
    ):
        written = read_rows(launch / "out" / name, row_type)
        rounded = [replace(row, logprob=float(f"{row.logprob:.9g}")) for row in rows]
        assert written == rounded, name


def test_without_logprobs_there_are_no_token_rows(checkpoint: Checkpoint, samples: list[Sample]) -> None:
    generated = generate_samples(checkpoint, samples, replace(DECODE, logprobs=None), 0)
    assert len(generated.generations) == len(samples)
    assert generated.tokens == []


@pytest.mark.parametrize("calls", [1, 5, 40, 70, 100])
def test_an_interrupted_run_continues_from_its_store(checkpoint: Checkpoint, samples: list[Sample], calls: int) -> None:
    whole = generate_samples(checkpoint, samples, DECODE, 0, 4)
    store, left = MemoryStore(), [calls]

    def interrupt(progress: Progress) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_samples(checkpoint, samples, DECODE, 0, 4, store, interrupt)
    n_before = len(store.rows[GenerationRow])
    assert n_before < len(samples)
    again = generate_samples(checkpoint, samples, DECODE, 0, 4, store)
    assert (again.generations, again.tokens) == (whole.generations, whole.tokens)
    assert (again.n_new_tokens < whole.n_new_tokens) == (n_before >= 9)  # a part is 8 samples, and 9 with whole prompts
    done = generate_samples(checkpoint, samples, DECODE, 0, 4, store)
    assert (done.generations, done.n_new_tokens) == (whole.generations, 0)


def watch(checkpoint: Checkpoint, samples: list[Sample], decode: DecodeConfig) -> list[Progress]:
    seen: list[Progress] = []
    generate_samples(checkpoint, samples, decode, 0, 4, on_progress=lambda progress: seen.append(replace(progress)))
    return seen


@pytest.mark.parametrize("beams", [False, True], ids=["samples", "beams"])
def test_progress(checkpoint: Checkpoint, samples: list[Sample], beams: bool) -> None:
    decode = DecodeConfig(num_samples=3, num_beams=3, max_new_tokens=6) if beams else DECODE
    first, *seen = watch(checkpoint, samples, decode)
    assert first == Progress(0)
    assert [progress.n_new_tokens for progress in seen] == list(range(1, len(seen) + 1))
    assert None not in [progress.token for progress in seen]
    assert [progress.n_finished for progress in seen] == sorted(progress.n_finished for progress in seen)
    assert seen[-1].n_finished == len(samples) - 1  # the last token ends the last sample
    assert all(0 < progress.n_in_flight <= 4 * 6 for progress in seen)


def test_progress_goes_back_where_memory_is_short(
    checkpoint: Checkpoint, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(model: Any, requests: Any, sampler: Any, stop: Any, size: int, *args: Any) -> Iterator[Any]:
        for n, found in enumerate(original(model, requests, sampler, stop, size, *args)):
            yield found
            if n == 1 and size > 2:
                raise RuntimeError("out of memory")

    original = runs.generate
    monkeypatch.setattr(runs, "generate", fails)
    seen = watch(checkpoint, samples, DECODE)
    fell = [after.n_finished for before, after in pairwise(seen) if after.n_finished < before.n_finished]
    assert fell == [0]
    assert seen[-1].n_finished == len(samples) - 1
    assert all(0 <= progress.n_in_flight <= 4 * 6 for progress in seen)


def test_prompts_that_do_not_fit_are_refused(checkpoint: Checkpoint) -> None:
    prompts = [Prompt("a", "to be"), Prompt("b", "to be " * 100)]
    with pytest.raises(
        UserError, match=r"prompt 'b' \('to be to .*\) has .* tokens, more than .* decode.on_overflow=crop"
    ):
        samples_of(checkpoint, prompts, DECODE)
    assert len(samples_of(checkpoint, prompts, replace(DECODE, on_overflow="crop"))) == 6
