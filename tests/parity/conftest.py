"""What the tests of subjects share: checkpoints in which no tensor is neutral, and validate with a subject."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPO, Cli, Result, read_csv, run_dir, tiny_hf

PLAIN = REPO / "tests" / "subjects" / "plain.py"

Checkpoints = Callable[..., Path]
Validate = Callable[..., Result]
Run = Callable[..., Any]  # gpt2x.parity.validation.Validation; importing it imports torch


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """Hugging Face directories of given sizes. Noise on every parameter: no bias is 0, and no norm is 1."""
    import torch

    from gpt2x.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(" ".join(f"line {i}: to be, or not to be {i * i}.\n" for i in range(200)), 300)
    made: dict[str, Path] = {}

    def make(**sizes: int) -> Path:
        if str(sizes) not in made:
            folder = made[str(sizes)] = tmp_path_factory.mktemp("checkpoint")
            defaults: dict[str, Any] = {"n_layer": 3, "n_embd": 48, "n_head": 3, "n_positions": 32}
            model = tiny_hf(**{**defaults, "bos_token_id": 0, "eos_token_id": 0, **sizes})
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += 0.2 * torch.randn_like(parameter)
            model.save_pretrained(folder)
            tokenizer.save(folder)
        return made[str(sizes)]

    return make


@pytest.fixture
def noisy(checkpoints: Checkpoints) -> Path:
    """3 layers, width 48, 3 heads, 32 positions, 300 tokens."""
    return checkpoints()


@pytest.fixture
def validate(gpt2x: Cli, noisy: Path, monkeypatch: pytest.MonkeyPatch) -> Validate:
    """`gpt2x ARGS` on the noisy checkpoint, with a subject from tests/subjects/plain.py unless it is None.

    The heat map is an empty file: drawing it would take a third of the time.
    """
    monkeypatch.setenv("PLAIN_WEIGHTS", str(noisy / "model.safetensors"))
    monkeypatch.setattr("gpt2x.tasks.validate.save_heat_map", lambda found, picture: picture.touch())

    def run(subject: str | None, *args: str, weights: Path = noisy, prompts: bool = True) -> Result:
        target = [] if subject is None else [f"subject.target={subject if ':' in subject else f'{PLAIN}:{subject}'}"]
        texts = ('prompt="to be, or not"', "task.gen_prompt=be", "decode.max_new_tokens=4") if prompts else ()
        return gpt2x(*target, f"weights.path={weights}", *texts, *args)

    return run


def summary_of(launch: Path) -> dict[str, str]:
    (summary,) = read_csv(run_dir(launch, "validate") / "summary.csv")
    return summary


@pytest.fixture
def run(noisy: Path, launch: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """validate() with a function that makes a model, the name of one in tests/subjects/plain.py, or gpt2x's own model.

    In an empty launch directory.
    """
    from gpt2x.checkpoints.load import load_checkpoint
    from gpt2x.config.model import ModelConfig
    from gpt2x.config.subject import SubjectConfig
    from gpt2x.config.tasks.validate import Stage
    from gpt2x.config.weights import WeightsConfig
    from gpt2x.device import find_device, find_dtype
    from gpt2x.parity.record_source import OracleRecord
    from gpt2x.parity.source import Source
    from gpt2x.parity.subject import import_target
    from gpt2x.parity.subject.given import GivenFactory
    from gpt2x.parity.validation import validate
    from gpt2x.prompts import Prompt

    monkeypatch.setenv("PLAIN_WEIGHTS", str(noisy / "model.safetensors"))

    def run(subject: str | Callable[..., Any] | None, *stages: Stage, weights: str = "copy", **options: Any) -> Any:
        asked = SubjectConfig(f"{PLAIN}:{subject}" if isinstance(subject, str) else None, weights)
        maker = import_target(asked) if isinstance(subject, str) else subject and GivenFactory(subject)
        source = Source(asked, maker)
        local = WeightsConfig(source="local", path=str(noisy))
        checkpoint = load_checkpoint(ModelConfig(name="auto"), local, find_dtype("float32"), find_device("cpu"))
        reference = OracleRecord("to be, or not", [Prompt("0", "be")], 4)
        return validate(checkpoint, source, reference, dtype="float32", stages=stages or tuple(Stage), **options)

    return run
