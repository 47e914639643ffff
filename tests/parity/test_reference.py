"""A saved reference: without transformers, and with the same answers; and validation where float64 does not fit."""

import json
import sys
from pathlib import Path

import pytest

from tests.conftest import Cli, read_csv, run_dir
from tests.parity.conftest import Checkpoints, Validate, summary_of

SUBJECTS = ["GPT2", "erf_in_mlp", "scale_none", "layers_swapped", "no_residual_mlp", "no_qkv_bias", "dropout_block"]


@pytest.fixture
def reference(validate: Validate, launch: Path, tmp_path: Path) -> Path:
    """Saved from the noisy checkpoint."""
    file = tmp_path / "reference" / "noisy.safetensors"
    assert validate(None, f"task.save_reference={file}", "hydra.run.dir=saving").code == 0
    return file


def without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "transformers"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "transformers", None)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_subject_fails_in_the_same_places_either_way(
    validate: Validate, reference: Path, launch: Path, monkeypatch: pytest.MonkeyPatch, subject: str
) -> None:
    live = validate(subject, "hydra.run.dir=live")
    without_transformers(monkeypatch)
    saved = validate_saved(validate, subject, reference, "hydra.run.dir=saved")
    assert live.code == saved.code == (0 if subject == "GPT2" else 1)
    for name in ("summary.csv", "parity.csv", "side_by_side.csv"):
        assert read_csv(launch / "live" / name) == read_csv(launch / "saved" / name)


def validate_saved(validate: Validate, subject: str | None, reference: Path, *args: str):
    """validate() as the fixture does, less the settings that a saved reference fixes."""
    return validate(subject, f"task.reference={reference}", *args, prompts=False)


def test_our_own_model_passes_without_transformers(
    validate: Validate, reference: Path, launch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_transformers(monkeypatch)
    result = validate_saved(validate, None, reference)
    assert result.code == 0, result.out + result.err
    parity = read_csv(run_dir(launch, "validate") / "parity.csv")
    assert {row["stage"] for row in parity if row["status"] == "skipped"} == {"sampling"}
    assert "not checked      sampling: a saved reference" in result.out


def test_what_does_not_go_with_a_saved_reference_is_refused(validate: Validate, reference: Path, launch: Path) -> None:
    def refused(*args: str) -> str:
        return validate_saved(validate, None, reference, *args).error()

    assert "dtype=float32" in refused("dtype=float64")
    assert "task.reference and prompt contradict" in refused("prompt=be")
    assert "task.save_reference" in refused("task.save_reference=other.safetensors")
    (launch / "other.txt").write_text("")
    assert "FILE.safetensors" in validate_saved(validate, None, launch / "other.txt").error()
    assert "no file" in validate_saved(validate, None, launch / "none.safetensors").error()


def test_other_weights_than_the_reference_was_made_with_are_named(
    gpt2x: Cli, reference: Path, checkpoints: Checkpoints
) -> None:
    line = gpt2x(f"task.reference={reference}", f"weights.path={checkpoints(seed=1)}").error()
    assert "other weights" in line
    assert "wte.weight is not the same" in line
    assert "weights.path=FILE" in line
    assert "made with vocab_size=300, not 1024" in gpt2x(f"task.reference={reference}").error()


def test_where_a_reference_cannot_be_saved_is_told_before_the_work(validate: Validate, launch: Path) -> None:
    (launch / "file").write_text("")
    for path in ("file/a.safetensors", "a.txt", "."):
        assert path.partition("/")[0] in validate(None, f"task.save_reference={path}").error()


@pytest.mark.parametrize("damage", ["json", "tensors", "format"])
def test_a_damaged_reference_is_refused(validate: Validate, reference: Path, damage: str) -> None:
    facts = reference.with_suffix(".json")
    if damage == "json":
        facts.write_text(facts.read_text()[:-20])
    elif damage == "tensors":
        reference.write_bytes(reference.read_bytes()[:-20])
    else:
        facts.write_text(json.dumps(json.loads(facts.read_text()) | {"format": 99}))
    assert str(reference.stem) in validate_saved(validate, None, reference).error()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("subject", "site", "cause"),
    [("GPT2", "", ""), ("scale_none", "h.0.attn", "not scaled"), ("post_norm", "h.0", "post-norm")],
)
def test_where_float64_does_not_fit(
    validate: Validate, launch: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, subject: str, site: str, cause: str
) -> None:
    monkeypatch.setattr("gpt2x.parity.record_source.available_memory", lambda: 1000)
    result = validate(subject, f"dtype={dtype}")
    assert "float64 does not fit in memory" in result.out
    summary = summary_of(launch)
    assert summary["first_divergence"] == site
    assert cause in summary["probable_cause"]
    assert result.code == (1 if site else 0), result.out
    assert summary["relative_difference"] == summary["error_ratio"] == ""


def test_int8_where_float64_does_not_fit(validate: Validate, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpt2x.parity.record_source.available_memory", lambda: 1000)
    result = validate(None, "dtype=int8")
    assert result.code == 0, result.out
    layers = [row for row in read_csv(run_dir(launch, "validate") / "parity.csv") if row["stage"] == "layers"]
    assert {row["metric"] for row in layers} == {"relative_difference"}


def test_where_bars_are_wide_the_nearest_mistake_is_not_yet_the_cause(
    validate: Validate, launch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpt2x.parity.record_source.available_memory", lambda: 1000)
    assert validate("nearly_silu", "dtype=bfloat16").code == 1
    summary = summary_of(launch)
    assert summary["first_divergence"] == "h.0.mlp"
    assert summary["probable_cause"].startswith("unknown: ")


def test_gradients_that_do_not_fit_are_skipped_and_said(
    validate: Validate, launch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpt2x.parity.record_source import fits_in_memory

    monkeypatch.setattr("gpt2x.parity.record_source.fits_in_memory", lambda *args: (fits_in_memory(*args)[0], False))
    result = validate(None)
    assert result.code == 0
    assert "not checked      gradients" in result.out


def test_random_weights_that_do_not_fit_are_refused(gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpt2x.memory.available_memory", lambda: 10**6)
    assert "needs 0.5 GB of memory" in gpt2x("model=gpt2", "weights=random").error()


def test_a_sweep_goes_on_without_what_does_not_fit(gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpt2x.memory.available_memory", lambda: 10**8)
    result = gpt2x("experiment=sizes", "task.stages=[config,logits]", "model=nano,gpt2")
    assert result.code == 0, result.err
    (folder,) = (launch / "runs" / "sweeps").iterdir()
    assert [row["status"] for row in read_csv(folder / "jobs.csv")] == ["done", "skipped"]
    assert [row["model"] for row in read_csv(folder / "summary.csv")] == ["nano"]
