"""Settings of the command line reach the task as they were meant."""

from pathlib import Path
from typing import Any

import pytest

from gpt2x.config.schema import Config
from gpt2x.config.tasks.generate import GenerateTask
from gpt2x.errors import UserError
from tests.conftest import Cli


@pytest.fixture
def configured(gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The Config that task=generate gets."""

    def run(*args: str) -> Config:
        seen: list[Config] = []

        def task(config: Config, settings: GenerateTask, run_dir: Path) -> None:
            seen.append(config)
            raise UserError("enough")

        monkeypatch.setattr("gpt2x.tasks.generate.run", task)
        assert "enough" in gpt2x("task=generate", *args).error()
        return seen[0]

    return run


@pytest.mark.parametrize(
    ("given", "stop"),
    [
        ("null", []),
        ("[]", []),
        ("User:", ["User:"]),
        ('"\n\n"', ["\n\n"]),
        (r'"\n\n"', [r"\n\n"]),  # a backslash is a backslash, as in prompts
        ('["a","b"]', ["a", "b"]),
        ('["\n","5"]', ["\n", "5"]),
        ('"${seed}"', ["${seed}"]),
        (r'["\${","???"]', [r"\${", "???"]),
        ('"???"', ["???"]),
        ('"a, b"', ["a, b"]),
        ('" a "', [" a "]),
    ],
)
def test_stop(configured: Any, given: str, stop: list[str]) -> None:
    assert configured(f"decode.stop={given}").decode.stop == stop


@pytest.mark.parametrize(("args", "batch_size"), [([], "auto"), (["batch_size=auto"], "auto"), (["batch_size=3"], 3)])
def test_batch_size(configured: Any, args: list[str], batch_size: int | str) -> None:
    assert configured(*args).batch_size == batch_size


def test_a_decoding_with_everything(configured: Any) -> None:
    """Settings that do go together, at the ends of their ranges."""
    settings = {"top_p": 1.0, "min_p": 1.0, "typical_p": 1.0, "min_new_tokens": 50, "lookup": True, "logprobs": 1}
    decode = configured(*(f"decode.{key}={value}" for key, value in settings.items())).decode
    assert {key: getattr(decode, key) for key in settings} == settings
    settings = {"num_beams": 2, "num_samples": 2, "length_penalty": -1.0, "no_repeat_ngram_size": 1}
    decode = configured(*(f"decode.{key}={value}" for key, value in settings.items())).decode
    assert {key: getattr(decode, key) for key in settings} == settings
