"""Models whose names are not Hugging Face's: their parts are found by structure, and compared like any others."""

import shlex
from pathlib import Path

import pytest

from tests.conftest import REPO, assert_in, read_csv, run_dir
from tests.parity.conftest import Checkpoints, Validate, summary_of

STYLES = REPO / "tests" / "subjects" / "styles.py"
CORRECT = ["Model", "PerHead", "InLibrary", "WithEinsum", "Numbered", "Twice", "Untold"]


@pytest.mark.parametrize("style", CORRECT)
def test_a_correct_model_passes(validate: Validate, launch: Path, style: str) -> None:
    result = validate(f"{STYLES}:{style}")
    assert result.code == 0, result.out + result.err
    checks = read_csv(run_dir(launch, "validate") / "parity.csv")
    sites = {row["site"] for row in checks if row["status"] == "ok"}
    thirds = {"PerHead": ".q.2_of_3", "Model": ".k", "Numbered": ".v"}
    assert {"h.0", "h.2.ln_1", "h.1.ln_2", "h.0.attn", "h.0.mlp", "h.0.mlp.act", "ln_f", "lm_head"} <= sites
    assert style not in thirds or f"h.2.attn.c_attn{thirds[style]}" in sites
    assert "unexpected" not in {row["status"] for row in checks}


def test_a_mistake_is_named(validate: Validate, launch: Path) -> None:
    assert validate(f"{STYLES}:Exact").code == 1
    summary = summary_of(launch)
    assert summary["first_divergence"] == "h.0.mlp.act"
    assert "erf" in summary["probable_cause"]


def test_every_mistake_of_a_lecture_is_listed(validate: Validate, launch: Path) -> None:
    assert validate(f"{STYLES}:Lecture").code == 1
    causes = read_csv(run_dir(launch, "validate") / "causes.csv")
    assert [(row["sites"], row["cause"]) for row in causes] == [
        ("h.*.attn.c_attn.q.*_of_3, h.*.attn.c_attn.k.*_of_3, h.*.attn.c_attn.v.*_of_3", "missing bias"),
        ("h.*.mlp.act", "ReLU instead of tanh GELU"),
    ]
    assert float(causes[-1]["difference_after"]) < 1e-9


def test_norms_are_named_where_all_matrices_have_their_names(validate: Validate) -> None:
    result = validate(f"{STYLES}:OnlyNorms", "task.stages=[weights,layers,logits]")
    assert result.code == 0, result.out


def test_a_norm_inside_the_mlp_is_none_of_the_layer(validate: Validate, launch: Path) -> None:
    assert validate(f"{STYLES}:NormInside").code == 1
    causes = read_csv(run_dir(launch, "validate") / "causes.csv")
    assert {row["sites"] for row in causes} == {"h.*.mlp"}


def test_what_is_called_the_head_is_the_head(validate: Validate, checkpoints: Checkpoints) -> None:
    """It could be another matrix as well, where there are four times as many tokens as n_embd."""
    result = validate(f"{STYLES}:MLPAtTheEnd", weights=checkpoints(n_embd=75))
    assert_in(result.out, '"^lm_head\\b","lm_head"')


def test_a_square_layer_is_no_table_of_positions(validate: Validate, checkpoints: Checkpoints) -> None:
    """With as many positions as n_embd, the pooler has the shape of one."""
    result = validate(f"{STYLES}:Idle", weights=checkpoints(n_positions=48))
    assert result.code == 0, result.out


def test_the_mapping_is_printed_and_can_be_given(validate: Validate, launch: Path) -> None:
    printed = validate(f"{STYLES}:PerHead").out
    (line,) = (line for line in printed.splitlines() if line.startswith("names "))
    *_, rename = shlex.split(line)
    again = validate(f"{STYLES}:PerHead", rename, "hydra.run.dir=again")
    assert again.code == 0, again.out + again.err
    assert "\nnames " not in again.out
    assert read_csv(launch / "again" / "parity.csv") == read_csv(run_dir(launch, "validate") / "parity.csv")


def test_hidden_states_and_targets(validate: Validate) -> None:
    result = validate(f"{STYLES}:Hidden")
    assert result.code == 0, result.out
    assert_in(result.out, "answers with hidden states")


def test_weights_of_its_own(validate: Validate) -> None:
    assert validate(f"{STYLES}:loaded", "subject.weights=own").code == 0


def test_parameters_that_change_nothing(validate: Validate, launch: Path) -> None:
    result = validate(f"{STYLES}:Idle")
    assert result.code == 0, result.out
    rows = read_csv(run_dir(launch, "validate") / "parity.csv")
    assert {row["site"]: row["note"].rpartition(" that is ")[2] for row in rows if "GPT-2 does not" in row["note"]} == {
        "lm_head.bias": "all zero",
        "pooler.weight": "not used",
        "pooler.bias": "not used",
    }


def test_a_rule_that_changes_no_name_is_reported(validate: Validate) -> None:
    result = validate("GPT2", "subject.rename=[['^no_such_name',wte],['^wte','wte']]")
    assert result.code == 0
    assert_in(result.out, "subject.rename: '^no_such_name' matches none of its names")
