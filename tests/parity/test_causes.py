"""Models with several mistakes (tests/subjects/several.py): validate lists all, in order, and nothing wrong."""

import math
import random
from itertools import pairwise
from pathlib import Path

import pytest

from gpt2x.config.tasks.validate import Stage
from gpt2x.parity.diagnosis.evidence import common_sites
from gpt2x.reports.validation import verdict
from tests.conftest import read_csv, run_dir
from tests.parity.conftest import Run, Validate, summary_of
from tests.parity.test_broken import IN_MODULES, IN_WIRING
from tests.subjects import plain, several

STAGES = (Stage.CONFIG, Stage.WEIGHTS, Stage.LAYERS, Stage.LOGITS)
ACT = "h.*.mlp.act: exact (erf) GELU instead of tanh"
EPS = "LayerNorm eps 1e-06 instead of 1e-05"
LN_F = "input of lm_head: norm skipped: ln_f"
LATER = "input of wpe: positions shifted: they begin at 1, not at 0"
SCALE = "h.*.attn: attention scores not scaled by 1/sqrt(head width)"
SWAPPED = "input of h.2: layers out of order: h.0, h.2, h.1"
STRICT = "h.*.attn: causal mask off by one: a token does not see itself"
INSIDE = "its input, which is behind the norm, is added to its output"
UNKNOWN = "unknown"
CASES = {
    "act_and_ln_f": [ACT, LN_F],
    "bias_act_positions": ["h.*.attn.c_attn: missing bias", ACT, LATER],
    "four": [
        "h.*.attn: attention scaled by width: 1/sqrt(n_embd)",
        "h.*.mlp.act: ReLU instead of tanh GELU",
        "h.*: residual left out around the MLP",
        "input of drop: embedding scaled by sqrt(n_embd)",
    ],
    "five": [
        "h.*.ln_1, h.*.ln_2: LayerNorm with the unbiased variance (n - 1)",
        "h.*.attn.c_attn: missing bias",
        SCALE,
        "h.*.mlp.act: sigmoid approximation of GELU, x sigmoid(1.702 x), instead of tanh",
        LN_F,
    ],
    "five_to_the_logits": [
        "h.*.attn: causal mask missing",
        "h.*.mlp.c_fc: missing bias",
        "h.0.mlp.act, h.2.mlp.act: exact (erf) GELU instead of tanh",
        "input of wpe: positions shifted: the first two are both 0",
        "logits: lm_head: logits scaled by 0.144337567297",
    ],
    "scale_and_mask": [SCALE, "h.*.attn: causal mask off by one: a token sees the next"],
    "mlp_in_one_piece": [
        "h.*.mlp: missing bias (in c_fc)",
        "h.*.mlp: exact (erf) GELU instead of tanh (in act)",
    ],
    "eps_and_variance": [
        "h.*.ln_1, h.*.ln_2, ln_f: LayerNorm eps 0.001 instead of 1e-05",
        "h.*.ln_1, h.*.ln_2, ln_f: LayerNorm with the unbiased variance (n - 1)",
    ],
    "heads_and_rounding": [
        "h.*.attn: heads interleaved: the width split as [head width, n_head]",
        "h.*.attn: attention weights rounded to float16",
    ],
    "embeddings": ["input of drop: position embedding left out", "input of drop: embedding scaled by sqrt(n_embd)"],
    "positions_and_ln_f": [LATER, LN_F],
    "one_rounding_and_ln_f": ["input of h.1: residual stream rounded to float16 after h.0", LN_F],
    "order_and_rounding": [SWAPPED, "input of h.2: residual stream rounded to float16 between all layers"],
    "block_and_rounding": [
        "h.*: post-norm instead of pre-norm",
        "input of h.1: residual stream rounded to float16 between all layers",
    ],
    "eps_and_ln_f_twice": [f"h.*.ln_1, h.*.ln_2, ln_f: {EPS}", "input of lm_head: ln_f applied twice"],
    "one_layer": ["h.1.mlp.act: exact (erf) GELU instead of tanh", LATER],
    "with_nan": [f"h.*.ln_1, h.*.ln_2, ln_f: {EPS}", STRICT, SWAPPED],
    "with_dropout": ["h.0.attn: dropout active in eval mode", f"h.*.ln_1, h.*.ln_2: {EPS}", LN_F],
    "nan_and_dropout": ["input of drop: dropout active in eval mode", STRICT],
    "unknown_after_known": [SCALE, f"h.*.mlp.act: {UNKNOWN}"],
    "unknown_before_known": [f"h.1.mlp.act: {UNKNOWN}", LN_F],
    "unknown_input": [ACT, f"input of lm_head: {UNKNOWN}", "logits: lm_head: logits scaled by 0.144337567297"],
    "thirds": ["h.*.attn.c_attn.q: missing bias", SCALE],
    "other_parts": [LN_F],
    "log_softmax": [
        "h.*.ln_1, h.*.ln_2, ln_f: RMS norm instead of LayerNorm",
        "logits: lm_head: log-probabilities, which softmax does not see: a log_softmax at the end",
    ],
    "rms_norms": [
        "h.*.ln_1, h.*.ln_2, ln_f: LayerNorm eps 1e-08 instead of 1e-05",
        "h.*.ln_1, h.*.ln_2, ln_f: RMS norm instead of LayerNorm, divided by RMS + eps and without bias",
        "h.*.mlp.act: ReLU instead of tanh GELU",
    ],
    "nothing_in_blocks": [
        "h.*: attention and MLP left out: the block does nothing",
        "logits: lm_head: logits scaled by 0.144337567297",
    ],
    "residuals_inside": [
        "h.*.attn: missing bias (in c_attn)",
        "h.*.attn: missing bias (in c_proj)",
        "h.*.attn: heads split and merged without a transpose",
        f"h.*.attn, h.*.mlp: {INSIDE}",
        "h.*: residuals left out around attention and the MLP",
    ],
    "inverted_and_tokens_twice": [
        "h.*.attn: causal mask inverted: a token sees only what follows, and the rest is filled with 1e-9 instead "
        "of -inf",
        "input of drop: sinusoidal positions instead of wpe: sines and cosines in turn",
        "input of drop: token embedding added twice",
    ],
    "table_in_float32": [
        "input of drop: sinusoidal positions instead of wpe: sines and cosines in turn, computed in float32",
        LN_F,
    ],
    "called_with_ids": ["h.*.attn: causal mask missing"],
    "biased_head": ["lm_head: a bias that GPT-2 has not: lm_head.bias", LN_F],
    "another_architecture": [
        "h.*.ln_1, h.*.ln_2, ln_f: LayerNorm eps 1e-08 instead of 1e-05",
        "h.*.ln_1, h.*.ln_2, ln_f: RMS norm instead of LayerNorm, divided by RMS + eps and without bias",
        "h.*.attn: rotary positions (RoPE) by halves, which GPT-2 has not",
        "h.*.mlp: SwiGLU, a gated MLP with three matrices, instead of GPT-2's",
    ],
    "own_weights_and_code": ["h.*.mlp.c_fc.bias: all zero", ACT, LN_F],
}


@pytest.mark.parametrize("name", CASES)
def test_all_causes_are_listed_in_order(run: Run, name: str) -> None:
    found = run(getattr(several, name), *STAGES, weights="own" if name.startswith("own") else "copy")
    named = [f"{each.sites}: {each.cause if each.known else UNKNOWN}" for each in found.causes]
    assert named == CASES[name]
    assert [each.order for each in found.causes] == list(range(1, len(named) + 1))
    # The causes explain the difference of the logits, one after the other and completely.
    assert all(a.difference_after == b.difference_before for a, b in pairwise(found.causes))
    assert found.causes[0].difference_before > found.tolerance
    assert found.causes[-1].difference_after <= found.tolerance
    first = found.causes[0]
    assert found.first_divergence == first.sites.split(", ")[0].replace("h.*", "h.0") or first.sites.endswith(".bias")


@pytest.mark.parametrize("name", ["GPT2", "in_place", "ends_elsewhere", "module_constant", "upcast_norm"])
def test_a_correct_model_has_no_causes(run: Run, name: str) -> None:
    found = run(name, *STAGES)
    assert found.passed
    assert found.causes == []


def test_a_correct_model_of_bare_matrices_passes(run: Run) -> None:
    """Square matrices that belong to no layer are used as [in, out], though those of the MLP are [out, in]."""
    assert run(several.bare_matrices, *STAGES).passed


def test_another_architecture_is_said_first(run: Run) -> None:
    found = run(several.another_architecture, *STAGES)
    assert verdict(found).plain.startswith(
        "FAIL  another architecture: RMSNorm, RoPE, SwiGLU; first divergence: h.0.ln_1"
    )


def test_random_pairs_of_mistakes_are_named_and_nothing_else(run: Run) -> None:
    """Where one mistake replaces the code of the other, only one of them exists."""
    cases, rng, n_complete = IN_MODULES + IN_WIRING, random.Random(1), 0
    for _ in range(24):
        pair = rng.sample(cases, 2)
        found = run(several.several(*(getattr(plain, name) for name, _, _ in pair)), *STAGES)
        assert not found.passed
        known = [each.cause for each in found.causes if each.known]
        assert all(any(words in cause for _, _, words in pair) for cause in known), (pair, known)
        n_complete += all(any(words in cause for cause in known) for _, _, words in pair)
    assert n_complete == 24


def test_the_table_and_the_console(validate: Validate, launch: Path) -> None:
    subject = f"{Path(several.__file__)}:bias_act_positions"
    result = validate(subject, "task.stages=[config,weights,layers,logits]")
    assert result.code == 1
    head, *lines = result.out.splitlines()
    assert head.startswith("FAIL  first divergence: h.0.attn.c_attn, isolated, ")
    causes = CASES["bias_act_positions"]
    assert lines[:3] == [f"  {number}. {cause}" for number, cause in enumerate(causes, 1)]
    assert all(len(line) <= 80 for line in (head, *lines[:3]))
    rows = read_csv(run_dir(launch, "validate") / "causes.csv")
    assert [f"{row['sites']}: {row['cause']}" for row in rows] == causes
    assert {row["known"] for row in rows} == {"True"}
    assert [row["mode"] for row in rows] == ["isolated", "isolated", "input"]
    assert all(float(row["value"]) > float(row["tolerance"]) == 1e-9 for row in rows)
    summary = summary_of(launch)
    assert summary["probable_cause"] == "missing bias"
    assert math.isclose(float(rows[0]["difference_before"]), float(summary["relative_difference"]), rel_tol=1e-6)


def test_the_table_of_a_correct_model_is_empty(validate: Validate, launch: Path) -> None:
    result = validate("GPT2", "task.stages=[config,layers,logits]")
    assert result.out.startswith("PASS  ")
    assert read_csv(run_dir(launch, "validate") / "causes.csv") == []


@pytest.mark.parametrize(
    ("sites", "common"),
    [
        (["h.0.mlp", "h.1.mlp", "h.2.mlp", "h.3.mlp", "h.4.mlp"], ["h.*.mlp"]),
        (["h.4.mlp", "h.0.mlp", "h.1.mlp", "h.3.mlp"], ["h.0..1.mlp", "h.3..4.mlp"]),
        (["h.2", "ln_f", "input of h.1", "input of h.2"], ["h.2", "ln_f", "input of h.1..2"]),
        (["h.1.attn", "h.1.attn", "h.10.attn"], ["h.1.attn", "h.10.attn"]),
        (["wte.weight", "h.0.ln_1.bias"], ["wte.weight", "h.0.ln_1.bias"]),
    ],
)
def test_sites_in_several_layers_are_said_once(sites: list[str], common: list[str]) -> None:
    assert common_sites(sites, n_layer=5) == common
