"""A reference that is NaN, or that changes from run to run, is reported as such, and does not fail the subject."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import assert_in, read_csv, run_dir
from tests.parity.conftest import Validate

Changed = Callable[[Callable[[dict[str, torch.Tensor]], None]], Path]


@pytest.fixture
def changed(noisy: Path, tmp_path: Path) -> Changed:
    """The noisy checkpoint with changed tensors."""
    from safetensors.torch import load_file, save_file

    def make(change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
        folder = tmp_path / "changed"
        folder.mkdir()
        for file in noisy.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        tensors = load_file(noisy / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return folder

    return make


def skipped_in(launch: Path) -> list[tuple[str, str, str]]:
    rows = read_csv(run_dir(launch, "validate") / "parity.csv")
    return [(row["stage"], row["site"], row["note"]) for row in rows if row["status"] == "skipped"]


@pytest.mark.parametrize("subject", [None, "GPT2"])
def test_without_finite_logits_there_is_no_verdict(
    validate: Validate, launch: Path, changed: Changed, subject: str | None
) -> None:
    folder = changed(lambda tensors: tensors["transformer.h.1.mlp.c_proj.bias"].fill_(1e5))  # infinite in float16
    result = validate(subject, "dtype=float16", weights=folder)
    assert result.code == 2
    assert_in(
        result.err.splitlines()[-1],
        "the reference itself is wrong",
        "first in h.1.mlp.c_proj;",
        "h.1.mlp.c_proj.bias of ",
        "dtype",
    )
    assert not list(launch.glob("runs/*/*/summary.csv"))


def test_positions_that_the_prompt_does_not_reach_are_left_out(
    validate: Validate, launch: Path, changed: Changed
) -> None:
    folder = changed(lambda tensors: tensors["transformer.wpe.weight"][30].fill_(1e5))
    result = validate("GPT2", "dtype=float16", weights=folder)
    assert result.code == 0, result.out
    assert ("loss", "32 tokens", "the reference's own loss is not finite") in skipped_in(launch)
    assert "the reference's own loss is not finite" in result.out


def test_a_reference_that_overflows_in_the_dtype_asked_for(validate: Validate, launch: Path, changed: Changed) -> None:
    def overflow(tensors: dict[str, torch.Tensor]) -> None:  # in their sum, and only in float16
        for layer in (0, 1):
            tensors[f"transformer.h.{layer}.mlp.c_proj.bias"].fill_(4e4)

    result = validate("GPT2", "dtype=float16", weights=changed(overflow))
    assert result.code == 0, result.out
    skipped = skipped_in(launch)
    assert ("logits", "lm_head", "the reference itself is not finite in float16") in skipped
    assert ("generation", "", "the reference's logits in this dtype are not finite") in skipped
    assert "as accurate?     not checked: the reference itself is not finite in float16" in result.out


def test_a_reference_that_changes_gives_no_verdict(validate: Validate, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpt2x.parity.reference import ask

    load = ask.load_oracle

    def unsteady(*args: Any) -> Any:
        model = load(*args)
        model.lm_head.register_forward_hook(lambda _module, _args, output: output + 1e-3 * torch.rand_like(output))
        return model

    monkeypatch.setattr(ask, "load_oracle", unsteady)
    line = validate("GPT2").error()
    assert_in(line, "the reference itself changes", "two runs of transformers on the same input differ by")
