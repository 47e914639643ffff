"""validate() as a library function, and the registry of its stages."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gpt2x.config.tasks.validate import Stage
from gpt2x.parity.causes import Cause, Kind
from gpt2x.parity.checks import Check, Metric, Mode, Status, checked, incomparable, informational, skipped
from gpt2x.parity.rows import parity_row
from gpt2x.parity.stages import STAGES
from tests.conftest import REPO
from tests.parity.conftest import Run


def test_the_registry_has_every_stage_in_order() -> None:
    assert [stage.name for stage in STAGES] == list(Stage)


def test_the_default_of_task_stages_is_every_stage_in_order() -> None:
    settings = yaml.safe_load((REPO / "conf" / "task" / "validate.yaml").read_text(encoding="utf-8"))
    assert settings["stages"] == list(Stage)


def test_it_prints_nothing_and_writes_nothing(run: Run, launch: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = run(None)
    assert found.passed
    assert (found.first_divergence, found.probable_cause, found.diagnosis) == ("", "", None)
    assert list(dict.fromkeys(check.stage for check in found.checks)) == found.stages == list(Stage)
    assert [texts.prompt for texts in found.side_by_side] == ["be"]
    assert list(found.seconds) == ["reference", "compare"]
    assert capfd.readouterr() == ("", "")
    assert list(launch.iterdir()) == []


def test_a_mistake_is_a_typed_cause(run: Run) -> None:
    found = run("act_erf", Stage.LAYERS)
    assert not found.passed
    assert found.diagnosis is not None
    assert found.diagnosis.cause == Cause("exact (erf) GELU instead of tanh", kind=Kind.ACTIVATION)
    assert (found.diagnosis.check.stage, found.diagnosis.check.mode) == (Stage.LAYERS, Mode.ISOLATED)
    assert list(found.seconds) == ["reference", "compare", "diagnose"]


def test_a_wrong_input_adds_its_check(run: Run) -> None:
    found = run("no_ln_f", Stage.LAYERS, Stage.LOGITS)
    assert found.diagnosis is not None
    assert found.checks[-1] is found.diagnosis.check
    assert (found.checks[-1].mode, found.checks[-1].site) == (Mode.INPUT, "lm_head")


def test_the_stages_run_in_order_and_say_so(run: Run) -> None:
    steps: list[str] = []
    found = run("act_erf", Stage.LOGITS, Stage.CONFIG, progress=steps.append)
    assert found.stages == [Stage.CONFIG, Stage.LOGITS]
    assert steps == ["asking the reference", "comparing config", "comparing logits", "looking for the cause"]


def test_an_exception_in_a_stage_is_a_bug(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpt2x.parity.stages.loss.context_losses", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("GPT2", Stage.LOSS)


def test_what_is_only_skipped_has_not_passed(run: Run) -> None:
    found = run("GPT2", Stage.CACHE)
    assert [check.status for check in found.checks] == [Status.SKIPPED]
    assert not found.passed


CHECKS = [
    (checked(Stage.LAYERS, "h.0", Metric.RELATIVE_DIFFERENCE, 0.1, 1e-9, mode=Mode.ISOLATED), "isolated", "mismatch"),
    (
        informational(Stage.LAYERS, "h.0", Metric.ERROR_RATIO, 9.0, mode=Mode.ISOLATED, dtype="float32"),
        "isolated, float32",
        "ok",
    ),
    (checked(Stage.LOGITS, "lm_head", Metric.MEAN_KL, float("nan"), 1.0, dtype="float64"), "float64", "nonfinite"),
    (
        checked(Stage.LOGITS, "lm_head", Metric.MEAN_KL, 0.5, 0.5, mode=Mode.CENTRED, dtype="float64"),
        "float64, centred",
        "ok",
    ),
    (skipped(Stage.CACHE, "why"), "", "skipped"),
    (incomparable(Stage.WEIGHTS, "wte.weight", Metric.MAX_ABS_DIFFERENCE, Status.MISSING, "why"), "", "missing"),
]


@pytest.mark.parametrize(("check", "mode", "status"), CHECKS)
def test_a_check_becomes_a_row(check: Check, mode: str, status: str) -> None:
    row = parity_row(check)
    assert (row.stage, row.site, row.mode, row.status) == (check.stage, check.site, mode, status)
    assert (row.value, row.tolerance, row.note) == (check.value, check.tolerance, check.note)
    assert row.metric == (check.metric or "")
    assert check.bad == (status not in ("ok", "skipped"))


def test_a_cause_is_the_note_where_there_is_none() -> None:
    check = checked(Stage.WEIGHTS, "wte.weight", Metric.MAX_ABS_DIFFERENCE, 1.0, 0, cause=Cause("all zero"))
    assert parity_row(check).note == "all zero"


@pytest.mark.parametrize(
    ("cause", "text"),
    [(Cause("post-norm"), "post-norm"), (Cause("", known=False), "unknown"), (Cause("1", known=False), "unknown: 1")],
)
def test_causes_in_words(cause: Cause, text: str) -> None:
    assert str(cause) == text


@pytest.mark.parametrize("module", ["gpt2x.parity.checks", "gpt2x.parity.rows"])
def test_facts_import_no_torch(module: str) -> None:
    code = f"import sys, {module}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
