"""The stages of validate, each seen to fail where it should, and to say what it did not check."""

from pathlib import Path
from typing import Any

import pytest

from gpt2x.config.tasks.validate import Stage
from tests.conftest import Cli, read_csv, run_dir
from tests.parity.conftest import PLAIN, Validate, summary_of


def parity(launch: Path) -> list[dict[str, Any]]:
    return read_csv(run_dir(launch, "validate") / "parity.csv")


def test_stages_come_in_their_order_whatever_is_asked(validate: Validate, launch: Path) -> None:
    result = validate(None, "task.stages=[logits,config,loss]")
    assert result.code == 0
    assert list(dict.fromkeys(row["stage"] for row in parity(launch))) == ["config", "logits", "loss"]
    left = [stage for stage in Stage if stage not in ("logits", "config", "loss")]
    assert f"not checked      {', '.join(left)}: not asked for" in result.out
    assert not (run_dir(launch, "validate") / "parity.png").exists()


@pytest.mark.parametrize("stage", ["tokenizer", "cache", "padding", "sampling"])
def test_what_is_skipped_is_not_passed(validate: Validate, launch: Path, stage: str) -> None:
    result = validate("GPT2", f"task.stages=[{stage}]")
    assert [row["status"] for row in parity(launch)] == ["skipped"]
    assert result.code == 1
    assert f"not checked      {stage}: " in result.out
    assert "nothing was compared" in result.out
    assert summary_of(launch)["verdict"] == "fail"


def test_every_module_is_compared_three_times(validate: Validate, launch: Path) -> None:
    assert validate(None).code == 0
    rows = [row for row in parity(launch) if row["stage"] == "layers"]
    inside = "ln_1 attn.c_attn attn.c_proj attn.resid_dropout attn ln_2 mlp.c_fc mlp.act mlp.c_proj mlp.dropout mlp"
    sites = ["wte", "wpe", "drop"]
    for i in range(3):
        sites += [*(f"h.{i}.{site}" for site in inside.split()), f"h.{i}"]
    sites += ["ln_f", "lm_head"]
    assert list(dict.fromkeys(row["site"] for row in rows)) == sites
    modes = [(row["mode"], row["metric"]) for row in rows if row["site"] == "h.1.attn"]
    relative = "relative_difference"
    assert modes == [("isolated", relative), ("propagated", relative), ("isolated, float32", "error_ratio")]


def test_modules_that_end_elsewhere_are_told_and_not_blamed(validate: Validate, launch: Path) -> None:
    result = validate("ends_elsewhere")
    assert result.code == 0, result.out
    skipped = [row["site"] for row in parity(launch) if row["stage"] == "layers" and row["status"] == "skipped"]
    assert list(dict.fromkeys(skipped)) == [f"h.{i}.mlp" for i in range(3)]
    assert "another part of the model than the reference's: the logits agree" in result.out


def test_without_modules_the_cause_is_found_all_the_same(validate: Validate, launch: Path) -> None:
    rename = "subject.rename=[['/','.']]"
    result = validate("Flat", rename, "hydra.run.dir=right")
    assert result.code == 0, result.out
    result = validate("FlatErf", rename, "task.stages=[weights,layers,logits]")
    assert result.code == 1
    assert "same function?   no" in result.out
    summary = summary_of(launch)
    assert summary["first_divergence"] == "logits: lm_head"
    assert "erf" in summary["probable_cause"]


def test_a_random_subject_has_the_same_rows_every_time(validate: Validate, launch: Path) -> None:
    for folder in ("a", "b"):
        assert validate("dropout_block", "task.stages=[layers]", f"hydra.run.dir={folder}").code == 1
    assert read_csv(launch / "a" / "parity.csv") == read_csv(launch / "b" / "parity.csv")


def test_random_weights_hide_no_mistake(gpt2x: Cli, launch: Path) -> None:
    sizes = ("model.n_layer=2", "model.n_embd=32", "model.n_head=4", "model.n_positions=64")
    target = f"subject.target={PLAIN}:norms_swapped"
    assert gpt2x("weights=random", "model=nano", *sizes, target, "task.stages=[layers]").code == 1
    assert "norms swapped" in summary_of(launch)["probable_cause"]


def test_the_heat_map_is_a_picture(gpt2x: Cli, launch: Path) -> None:
    result = gpt2x(f"subject.target={PLAIN}:erf_in_mlp", "task.stages=[layers]")
    picture = run_dir(launch, "validate") / "parity.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"heat map         {picture.relative_to(launch)}" in result.out


SUBJECTS = '''
import torch
from torch.nn import functional as F
from tests.subjects.plain import GPT2, MLP, Attention, causal, mistake

detached = mistake(GPT2, embed=lambda m, ids, p: (m.wte(ids) + m.wpe(p)).detach())
no_gradients = mistake(GPT2, head=torch.no_grad()(lambda m, x: m.lm_head(x)))
detached_mlp = mistake(MLP, forward=lambda m, x: m.c_proj(m.act(m.c_fc(x.detach()))))


def sloppy(m, x):
    """Right in float64; elsewhere the product is made in bfloat16."""
    if x.dtype == torch.float64:
        return m.c_proj(m.act(m.c_fc(x)))
    return F.linear(m.act(m.c_fc(x)).bfloat16(), m.c_proj.weight.bfloat16()).to(x.dtype) + m.c_proj.bias


rounds = mistake(MLP, forward=sloppy)
overflows = mistake(GPT2, head=lambda m, x: m.lm_head(x * 3e4) / 3e4)
overflows_within = mistake(MLP, forward=lambda m, x: m.c_proj(m.act(m.c_fc(x)) * 1e5 / 1e5))


class Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise ValueError("no way back")


no_way_back = mistake(GPT2, head=lambda m, x: Backward.apply(m.lm_head(x)))
window = mistake(Attention, mask=lambda m, s: s.masked_fill(~causal(s) | causal(s, -8), -torch.inf))


def mixes_rows(m, ids):
    return torch.arange(ids.shape[1]) + (len(ids) > 1)


batch = mistake(GPT2, positions=mixes_rows)


def hooked(find, change):
    def make(a):
        model = GPT2(a)
        find(model).register_hook(change)
        return model

    return make


def one_entry(gradient):
    """Of 14,400 entries every third is kept in a record; this is none of them."""
    return gradient.flatten().index_add(0, torch.tensor([1]), torch.tensor([1.0])).view_as(gradient)


negated = hooked(lambda m: m.h[1].ln_1.bias, torch.neg)
one_off = hooked(lambda m: m.wte.weight, one_entry)
'''


@pytest.fixture
def subjects(tmp_path: Path) -> Path:
    (tmp_path / "subjects.py").write_text(SUBJECTS)
    return tmp_path / "subjects.py"


def test_a_gradient_that_does_not_flow_is_named(validate: Validate, launch: Path, subjects: Path) -> None:
    assert validate(f"{subjects}:detached_mlp").code == 1
    wrong = {row["site"] for row in parity(launch) if row["status"] != "ok" and row["stage"] == "gradients"}
    assert {row["stage"] for row in parity(launch) if row["status"] == "mismatch"} == {"gradients"}
    assert "h.0.attn.c_attn.weight" in wrong
    assert "h.2.mlp.c_proj.weight" not in wrong
    assert summary_of(launch)["first_divergence"].startswith("gradients: ")


def test_a_parameter_without_a_gradient_is_missing(validate: Validate, launch: Path, subjects: Path) -> None:
    assert validate(f"{subjects}:detached").code == 1
    missing = [row["site"] for row in parity(launch) if row["status"] == "missing"]
    assert missing == ["wpe.weight"]


def test_a_gradient_is_followed_back_to_where_it_is_lost(validate: Validate, launch: Path, subjects: Path) -> None:
    assert validate(f"{subjects}:detached_mlp", "task.stages=[gradients]").code == 1
    summary = summary_of(launch)
    assert summary["first_divergence"] == "gradients: h.2.ln_2.bias"
    assert summary["probable_cause"] == "no gradient reaches it"


@pytest.mark.parametrize(("subject", "name"), [("negated", "h.1.ln_1.bias"), ("one_off", "wte.weight")])
def test_one_wrong_gradient_is_named(validate: Validate, launch: Path, subjects: Path, subject: str, name: str) -> None:
    assert validate(f"{subjects}:{subject}", "task.stages=[logits,gradients]").code == 1
    assert [row["site"] for row in parity(launch) if row["status"] == "mismatch"] == [name]
    assert summary_of(launch)["first_divergence"] == f"gradients: {name}"


def test_a_subject_that_fails_in_its_backward_pass_gets_a_row(validate: Validate, launch: Path, subjects: Path) -> None:
    assert validate(f"{subjects}:no_way_back").code == 1
    summary = summary_of(launch)
    assert summary["first_divergence"] == "gradients: subject"
    assert "ValueError: no way back" in summary["probable_cause"]


@pytest.mark.parametrize(
    ("subject", "site", "cause"),
    [("window", "loss: 32 tokens", "wrong from token 8 of 32 on"), ("batch", "loss: batch of 2", "unknown: ")],
)
def test_what_the_prompt_does_not_show_is_found(
    validate: Validate, launch: Path, subjects: Path, subject: str, site: str, cause: str
) -> None:
    assert validate(f"{subjects}:{subject}", "task.stages=[layers,logits]", "hydra.run.dir=short").code == 0
    assert validate(f"{subjects}:{subject}").code == 1
    summary = summary_of(launch)
    assert summary["first_divergence"] == site
    assert cause in summary["probable_cause"]


def test_a_pass_claims_no_more_than_was_checked(validate: Validate) -> None:
    result = validate("act_erf", "task.stages=[config,weights]")
    assert result.code == 0
    assert "PASS  nothing wrong in config, weights; whether" in result.out
    assert "computes what transformers" not in result.out


def test_a_subject_without_gradients_is_skipped(validate: Validate, subjects: Path) -> None:
    result = validate(f"{subjects}:no_gradients")
    assert "not checked      gradients: the subject's forward pass keeps no gradients" in result.out
    assert result.code == 0, result.out


def test_the_right_function_with_large_rounding_errors_is_named(
    validate: Validate, launch: Path, subjects: Path
) -> None:
    assert validate(f"{subjects}:rounds", "dtype=float64", "hydra.run.dir=exact").code == 0
    result = validate(f"{subjects}:rounds")
    assert result.code == 1
    summary = summary_of(launch)
    assert summary["first_divergence"] == "h.0.mlp"
    assert "rounding error" in summary["probable_cause"]
    assert float(summary["relative_difference"]) < 1e-12
    assert float(summary["error_ratio"]) > 100
    assert "same function?   yes" in result.out
    assert "as accurate?     no" in result.out


@pytest.mark.parametrize(("subject", "site"), [("overflows", "logits: lm_head"), ("overflows_within", "h.0.mlp")])
def test_what_overflows_in_half_precision_is_named(
    validate: Validate, launch: Path, subjects: Path, subject: str, site: str
) -> None:
    stages = "task.stages=[config,weights,layers,logits,generation]"
    assert validate(f"{subjects}:{subject}", "dtype=float32", stages, "hydra.run.dir=single").code == 0
    assert validate(f"{subjects}:{subject}", "dtype=float16", stages).code == 1
    summary = summary_of(launch)
    assert summary["first_divergence"] == site
    assert summary["probable_cause"] == "the same function in float64, but in this dtype it overflows"


def test_the_first_other_token_is_told_with_its_margin(validate: Validate, launch: Path) -> None:
    assert validate("act_relu", "task.stages=[generation]", "decode.max_new_tokens=12").code == 1
    (row,) = parity(launch)
    (text,) = read_csv(run_dir(launch, "validate") / "side_by_side.csv")
    assert text["verdict"] == "different"
    assert f"token {text['first_difference']}: subject '" in row["note"]
    assert "top-2 margin" in row["note"]
    assert float(text["top2_margin"]) > 0


def test_dtypes_end_in_one_table(gpt2x: Cli, launch: Path) -> None:
    assert gpt2x("experiment=dtypes", "task.stages=[config,logits]").code == 0
    (folder,) = (launch / "runs" / "sweeps").iterdir()
    rows = read_csv(folder / "summary.csv")
    assert [row["dtype"] for row in rows] == ["float64", "float32", "bfloat16", "float16"]
    assert all(float(row["relative_difference"]) < 1e-12 for row in rows)
    assert [bool(row["error_ratio"]) for row in rows] == [False, True, True, True]


def test_help_says_that_a_subject_is_executed(gpt2x: Cli) -> None:
    assert "EXECUTED" in gpt2x("--help").out
