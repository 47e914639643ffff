"""Models that ask for something of their own, as strangers' models do, run with subject.target alone."""

from pathlib import Path

import pytest

from tests.conftest import REPO, assert_in, read_csv, run_dir
from tests.parity.conftest import Validate

VARIANTS = REPO / "tests" / "subjects" / "variants.py"


def test_a_model_that_accepts_one_length_only(validate: Validate, launch: Path) -> None:
    result = validate(f"{VARIANTS}:FullContext")
    assert result.code == 0, result.out + result.err
    assert_in(" ".join(result.out.split()), "accepts 32 ids only: shorter texts are filled up at the end")
    checks = read_csv(run_dir(launch, "validate") / "parity.csv")
    compared = {(row["site"], row["mode"]) for row in checks if row["status"] == "ok"}
    assert {("h.1", "isolated"), ("h.1", "propagated"), ("h.2.attn.c_attn.k", "isolated")} <= compared


def test_its_mistake_is_named(validate: Validate, launch: Path) -> None:
    assert validate(f"{VARIANTS}:full_mask", "task.stages=[layers,logits]").code == 1
    (cause,) = read_csv(run_dir(launch, "validate") / "causes.csv")
    assert cause["sites"] == "h.*.attn"
    assert cause["cause"] == "attention scores not scaled by 1/sqrt(head width)"
    assert float(cause["difference_after"]) < 1e-9


def test_a_padded_vocabulary_is_cut(validate: Validate) -> None:
    result = validate(f"{VARIANTS}:Padded")
    assert result.code == 0, result.out + result.err
    assert_in(" ".join(result.out.split()), "its vocabulary of 320 is padded, and was cut to the first 300")


def test_a_table_with_a_few_more_positions_is_cut(validate: Validate) -> None:
    result = validate(f"{VARIANTS}:MorePositions")
    assert result.code == 0, result.out + result.err
    assert_in(" ".join(result.out.split()), "its table of 33 positions was cut to the first 32")


@pytest.mark.parametrize("name", ["LossFirst", "OnRequest", "InObject"])
def test_logits_are_found_in_the_answer(validate: Validate, name: str) -> None:
    result = validate(f"{VARIANTS}:{name}", "task.stages=[layers,logits]")
    assert result.code == 0, result.out + result.err


def test_parts_of_another_architecture_are_named(validate: Validate, launch: Path) -> None:
    result = validate(f"{VARIANTS}:Modern", "task.stages=[weights,layers,logits]")
    assert result.code == 1, result.out + result.err
    assert_in(result.out, "another architecture: GQA, QK norm, GEGLU")
    causes = read_csv(run_dir(launch, "validate") / "causes.csv")
    assert [(row["sites"], row["cause"]) for row in causes] == [
        ("h.*.attn", "queries of 3 heads share the keys and values of 1 (GQA), which GPT-2 has not"),
        ("h.*.attn", "queries and keys normalised (RMS of each head, eps 1e-06), which GPT-2 has not"),
        ("h.*", "GEGLU, a gated MLP with three matrices, instead of GPT-2's"),
    ]
    assert float(causes[-1]["difference_after"]) < 1e-9


def test_the_base_of_sinusoidal_positions_is_found(validate: Validate, launch: Path) -> None:
    assert validate(f"{VARIANTS}:positions_to_another_base", "task.stages=[layers,logits]").code == 1
    (cause,) = read_csv(run_dir(launch, "validate") / "causes.csv")
    assert_in(cause["cause"], "sines and cosines in turn, to the base 100000000")
    assert float(cause["difference_after"]) < 1e-9


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("first_norm_not_called", "norm skipped: ln_1"),
        ("second_norm_not_called", "norm skipped: ln_2"),
        ("attention_not_called", "attention left out"),
    ],
)
def test_a_norm_that_is_not_called(name: str, cause: str, validate: Validate, launch: Path) -> None:
    assert validate(f"{VARIANTS}:{name}", "task.stages=[weights,layers,logits]").code == 1
    (found,) = read_csv(run_dir(launch, "validate") / "causes.csv")
    assert (found["sites"], found["cause"]) == ("h.*", cause)


@pytest.mark.parametrize(
    ("name", "causes"),
    [
        ("norm_used_twice", [("h.*", "ln_1 used for both norms")]),
        (
            "PostNorm",
            [("h.*", "post-norm instead of pre-norm"), ("lm_head", "a bias that GPT-2 has not: lm_head.bias")],
        ),
        ("Rotary", [("h.*.attn", "rotary positions (RoPE) by neighbours, which GPT-2 has not")]),
        (
            "WithOneHead",
            [
                ("h.*.attn", "one head of the whole width instead of n_head"),
                ("h.*.attn", "heads merged with the positions in the innermost place"),
            ],
        ),
        ("objects_between", [("h.*.mlp.act", "exact (erf) GELU instead of tanh")]),
    ],
)
def test_its_causes_are_named_and_nothing_else(
    name: str, causes: list[tuple[str, str]], validate: Validate, launch: Path
) -> None:
    assert validate(f"{VARIANTS}:{name}", "task.stages=[weights,layers,logits]").code == 1
    rows = read_csv(run_dir(launch, "validate") / "causes.csv")
    assert [(row["sites"], row["cause"]) for row in rows] == causes
    assert float(rows[-1]["difference_after"]) < 1e-9
    if causes[-1][0] == "lm_head":  # it is mended where the head is made
        line = VARIANTS.read_text().splitlines()[int(rows[-1]["line"]) - 1]
        assert line.strip() == "self.unembed = nn.Linear(a.n_embd, a.vocab_size)"


def test_a_module_is_unknown_but_not_the_block_around_it(validate: Validate, launch: Path) -> None:
    assert validate(f"{VARIANTS}:WithOdd", "task.stages=[weights,layers,logits]").code == 1
    biases, unknown = read_csv(run_dir(launch, "validate") / "causes.csv")
    assert biases["sites"] == "h.*.attn.c_attn.q, h.*.attn.c_attn.k, h.*.attn.c_attn.v"
    assert biases["cause"] == "missing bias"
    assert (unknown["sites"], unknown["known"]) == ("h.*.attn", "False")
    assert float(unknown["difference_after"]) < 1e-9
