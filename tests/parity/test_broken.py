"""Broken models, each with one mistake (tests/subjects/plain.py makes them): validate says no, where, and why."""

from pathlib import Path

import pytest

from tests.parity.conftest import Validate, summary_of

STAGES = "task.stages=[config,weights,layers,logits]"

ACT, NORM, ATTN, BLOCK = "h.0.mlp.act", "h.0.ln_1", "h.0.attn", "h.0"
C_ATTN, C_PROJ, C_FC, LN_2 = "h.0.attn.c_attn", "h.0.attn.c_proj", "h.0.mlp.c_fc", "h.0.ln_2"
END = "logits: lm_head"
DROPOUT = "dropout active in eval"

# (factory in plain.py, first divergence, words of the probable cause)
IN_MODULES = [
    ("act_erf", ACT, "erf"),
    ("act_sigmoid", ACT, "sigmoid(1.702 x)"),
    ("act_relu", ACT, "ReLU"),
    ("act_squared", ACT, "squared ReLU"),
    ("act_fp16", ACT, "rounded to float16"),
    ("erf_in_mlp", "h.0.mlp", "erf"),
    ("monolith_erf", BLOCK, "erf"),
    ("mlp_bf16", "h.0.mlp", "rounded to bfloat16"),
    ("eps_1e6", NORM, "eps 1e-06"),
    ("eps_1e12", NORM, "eps 1e-12"),
    ("norm_rms", NORM, "RMS norm"),
    ("norm_unbiased", NORM, "unbiased variance"),
    ("scale_none", ATTN, "not scaled"),
    ("scale_width", ATTN, "1/sqrt(n_embd)"),
    ("scale_n_head", ATTN, "scaled by 1/n_head"),
    ("order_qvk", ATTN, "another order: q, v, k"),
    ("order_kqv", ATTN, "another order: k, q, v"),
    ("order_kvq", ATTN, "another order: k, v, q"),
    ("order_vqk", ATTN, "another order: v, q, k"),
    ("order_vkq", ATTN, "another order: v, k, q"),
    ("query_by_value", ATTN, "projection of v used for q as well"),
    ("heads_interleaved", ATTN, "heads interleaved"),
    ("heads_of_thirds", ATTN, "interleaved by head"),
    ("heads_not_transposed", ATTN, "without a transpose"),
    ("mask_none", ATTN, "mask missing"),
    ("mask_ahead", ATTN, "off by one: a token sees the next"),
    ("mask_strict", ATTN, "off by one: a token does not see itself"),
    ("mask_strict_inf", ATTN, "off by one: a token does not see itself"),
    ("mask_filled", ATTN, "filled with -1e-9"),
    ("rope_halves", ATTN, "RoPE) by halves"),
    ("rope_neighbours", ATTN, "RoPE) by neighbours"),
    ("rope_backwards", ATTN, "RoPE) by halves and backwards"),
    ("alibi", ATTN, "ALiBi"),
    ("softmax_queries", ATTN, "softmax over the wrong axis: queries"),
    ("softmax_heads", ATTN, "softmax over the wrong axis: heads"),
    ("softmax_batch", ATTN, "softmax over the wrong axis: batch"),
    ("weights_fp16", ATTN, "attention weights rounded to float16"),
    ("weights_bf16", ATTN, "attention weights rounded to bfloat16"),
    ("dropout_attention", ATTN, DROPOUT),
    ("dropout_residual", ATTN, DROPOUT),
    ("dropout_sdpa", ATTN, DROPOUT),
    ("post_norm", BLOCK, "post-norm"),
    ("norms_swapped", BLOCK, "norms swapped"),
    ("norms_bare", BLOCK, "LayerNorm for both norms, without weight and bias"),
    ("no_ln_1", BLOCK, "norm skipped: ln_1"),
    ("no_ln_2", BLOCK, "norm skipped: ln_2"),
    ("identity_for_ln_2", LN_2, "norm skipped"),
    ("no_residual_attn", BLOCK, "residual left out around attention"),
    ("no_residual_mlp", BLOCK, "residual left out around the MLP"),
    ("residual_twice", BLOCK, "residual added twice around attention"),
    ("dropout_block", BLOCK, DROPOUT),
    ("no_qkv_bias", C_ATTN, "missing bias"),
    ("no_norm_bias", NORM, "missing bias"),
    ("bias_in_head", "lm_head", "lm_head.bias"),
]
IN_WIRING = [
    ("no_ln_f", "input of lm_head", "norm skipped: ln_f"),
    ("layers_swapped", "input of h.2", "layers out of order: h.0, h.2, h.1"),
    ("layers_backwards", "input of h.2", "layers out of order: h.2, h.1, h.0"),
    ("layer_skipped", "input of h.2", "layers skipped or repeated: h.0, h.2"),
    ("last_layer_skipped", "input of ln_f", "layers skipped or repeated: h.0, h.1"),
    ("positions_later", "input of wpe", "positions shifted: they begin at 1"),
    ("positions_earlier", "input of wpe", "positions shifted: the first two are both 0"),
    ("layers_unchained", "input of h.1", "layers not chained"),
    ("positions_sinusoidal", "input of drop", "sinusoidal positions instead of wpe: sines and cosines in turn"),
    ("no_positions", "input of drop", "position embedding left out"),
    ("embedding_scaled", "input of drop", "embedding scaled by sqrt(n_embd)"),
    ("sum_scaled", "input of drop", "sum of the embeddings scaled by sqrt(n_embd)"),
    ("dropout_embedding", "input of drop", DROPOUT),
    ("residual_fp16", "input of h.1", "residual stream rounded to float16"),
    ("residual_bf16", "input of h.1", "residual stream rounded to bfloat16"),
    ("logits_shifted", END, "softmax does not see"),
    ("logits_capped", END, "soft-capped at 30"),
    ("logits_fp16", END, "rounded to float16"),
    ("logits_scaled", END, "logits scaled by 0.14433756"),
    ("probabilities", END, "probabilities instead of logits"),
]
IN_LOADING = [
    ("own_attn_proj_untransposed", C_PROJ, "not transposed: h.0.attn.c_proj.weight"),
    ("own_qkv_reshaped", C_ATTN, "reshaped instead of transposed"),
    ("own_fc_reshaped", C_FC, "reshaped instead of transposed"),
    ("own_all_reshaped", C_ATTN, "reshaped instead of transposed"),
    ("own_norms_swapped", NORM, "holds h.0.ln_2.weight"),
    ("own_layers_swapped", "h.1.ln_1", "holds h.2.ln_1.weight"),
    ("own_order_kqv", C_ATTN, "in the order k, q, v"),
    ("own_bias_forgotten", C_FC, "all zero: h.0.mlp.c_fc.bias"),
    ("own_bf16", "wte", "rounded to bfloat16"),
    ("own_head_untied", "lm_head", "not tied"),
]


def check(launch: Path, site: str, words: str) -> None:
    summary = summary_of(launch)
    assert summary["verdict"] == "fail"
    assert (summary["first_divergence"], words in summary["probable_cause"]) == (site, True), summary["probable_cause"]


@pytest.mark.parametrize(("name", "site", "words"), IN_MODULES + IN_WIRING)
def test_mistake_is_named(validate: Validate, launch: Path, name: str, site: str, words: str) -> None:
    assert validate(name, STAGES).code == 1
    check(launch, site, words)


@pytest.mark.parametrize(("name", "site", "words"), IN_LOADING)
def test_mistake_of_a_loader_is_named(validate: Validate, launch: Path, name: str, site: str, words: str) -> None:
    assert validate(name, STAGES, "subject.weights=own").code == 1
    check(launch, site, words)


@pytest.mark.parametrize(
    ("name", "site", "words"),
    [case for case in IN_MODULES + IN_WIRING if case[0] in ("act_erf", "eps_1e12", "no_ln_f")],
)
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_mistake_is_named_in_every_dtype(
    validate: Validate, launch: Path, name: str, site: str, words: str, dtype: str
) -> None:
    assert validate(name, STAGES, f"dtype={dtype}").code == 1
    check(launch, site, words)
