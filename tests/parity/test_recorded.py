"""subject=recorded: files of what another program has answered, compared with the reference on the same ids."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import gpt2x
from gpt2x.config.subject import SubjectConfig
from gpt2x.config.tasks.validate import Stage
from gpt2x.parity.causes import Cause
from gpt2x.parity.recorded.comparison import UNANSWERED
from gpt2x.parity.recorded.trials import Trial, named
from gpt2x.parity.subject import import_target
from gpt2x.parity.trace import trace
from tests.conftest import Cli, Result, assert_in, read_csv, run_dir
from tests.parity.conftest import PLAIN, Checkpoints, summary_of

IDS = [5, 72, 9, 100, 101, 33, 250]
T = len(IDS)

Record = Callable[..., Path]
Compare = Callable[..., Result]


@pytest.fixture
def record(noisy: Path, launch: Path) -> Record:
    """Writes what a model of tests/subjects/plain.py with the noisy weights answers to IDS, as a.safetensors.

    `keep` are the modules whose outputs are kept.
    """

    def write(
        name: str = "GPT2",
        keep: Callable[[str], bool] = lambda site: True,
        in_dtype: str = "float32",
        change: Callable[[dict[str, Tensor]], None] = lambda tensors: None,
        **facts: Any,
    ) -> Path:
        from gpt2x.checkpoints.architecture import read_config

        file = load_file(noisy / "model.safetensors")
        target = import_target(SubjectConfig(f"{PLAIN}:{name}", "copy"))
        model = target.build(read_config(noisy), torch.float32).eval()
        for own, parameter in model.named_parameters():
            tensor = file[f"transformer.{own}"]
            conv1d = own.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))
            parameter.data = (tensor.t() if conv1d else tensor).clone()
        model.to(getattr(torch, in_dtype))
        tensors: dict[str, Tensor] = {}
        modules = {site: module for site, module in model.named_modules() if site not in ("", "h", "lm_head")}
        torch.manual_seed(0)
        seen = trace(lambda: tensors.update(logits=model(torch.tensor([IDS]))), modules)
        tensors |= {f"outputs/{site}": output for site, output in seen.outputs.items() if keep(site)}
        change(tensors)
        tensors = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
        save_file(tensors, launch / "a.safetensors", {"ids": json.dumps(IDS)} | facts)
        return launch / "a.safetensors"

    return write


@pytest.fixture
def compare(gpt2x: Cli, noisy: Path) -> Compare:
    """`gpt2x subject=recorded ARGS` on a.safetensors, with the noisy checkpoint."""

    def run(*args: str, weights: Path = noisy) -> Result:
        return gpt2x("subject=recorded", "subject.target=a.safetensors", f"weights.path={weights}", *args)

    return run


def rows_of(launch: Path, stage: str) -> list[dict[str, Any]]:
    return [row for row in read_csv(run_dir(launch, "validate") / "parity.csv") if row["stage"] == stage]


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_the_same_function_passes_in_its_dtype(record: Record, compare: Compare, launch: Path, dtype: str) -> None:
    record(in_dtype=dtype)
    result = compare(f"dtype={dtype}")
    assert result.code == 0, result.out + result.err
    layers, logits = rows_of(launch, "layers"), rows_of(launch, "logits")
    assert not list(launch.rglob("parity.png"))  # its modules are not compared on the reference's input
    assert {row["status"] for row in layers} == {"ok"}  # all modules are recorded
    assert len(layers) == 3 + 1 + 3 * 10
    tolerance = {"float64": 1e-9, "float32": 1e-5, "bfloat16": 0.05}[dtype]
    assert {(row["mode"], float(row["tolerance"])) for row in layers} == {(f"propagated, {dtype}", tolerance)}
    (ratio,) = [row for row in logits if row["metric"] == "error_ratio"]
    assert ratio["status"] == "skipped" if dtype == "float64" else 0.25 < float(ratio["value"]) < 4
    assert (summary_of(launch)["relative_difference"] != "") == (dtype == "float64")


def test_what_a_recording_does_not_answer_is_skipped_with_the_reason(
    record: Record, compare: Compare, launch: Path
) -> None:
    record(keep=lambda site: site == "h.1.mlp")
    result = compare()
    assert result.code == 0
    assert set(UNANSWERED) == set(Stage) - {Stage.LAYERS, Stage.LOGITS}
    for stage, why in UNANSWERED.items():
        assert [(row["status"], row["note"]) for row in rows_of(launch, stage)] == [("skipped", why)]
        assert f"{stage}: {why}" in result.out
    assert [(row["site"], row["status"]) for row in rows_of(launch, "layers")] == [
        ("h.1.mlp", "ok"),
        ("32 of 33 modules", "skipped"),
    ]
    assert "32 of 33 modules: the recording does not hold their outputs" in result.out


# (factory in plain.py, first divergence if all outputs are kept, words of the cause from these, and from logits alone)
BROKEN = [
    ("act_erf", "h.0.mlp.act", "exact (erf) GELU", "exact (erf) GELU"),
    ("erf_in_mlp", "h.0.mlp.c_proj", "exact (erf) GELU", "exact (erf) GELU"),
    ("norm_rms", "h.0.ln_1", "RMS norm", "RMS norm"),
    ("eps_1e12", "h.0.ln_1", *["unknown: ... mistakes explain it equally well ... LayerNorm eps 1e-12"] * 2),
    ("scale_none", "h.0.attn.c_proj", "not scaled", "not scaled"),
    ("no_ln_1", "h.0.attn.c_attn", "norm skipped: ln_1", "norm skipped: ln_1"),
    ("positions_later", "wpe", "they begin at 1", "they begin at 1"),
    ("layers_swapped", "h.1.ln_1", "layers out of order: h.0, h.2, h.1", "layers out of order: h.0, h.2, h.1"),
    ("logits_scaled", "logits: lm_head", "scaled by 0.14433", "scaled by 0.14433"),
    ("logits_fp16", "logits: lm_head", "rounded to float16", "rounded to float16"),
    ("logits_shifted", "logits: lm_head", "log-probabilities instead of logits", "log-probabilities"),
    ("nearly_silu", "h.0.mlp.act", "unknown: none of", "unknown: none of"),
    ("dropout_block", "h.0.ln_2", "unknown: none of", "unknown: none of"),
]


@pytest.mark.parametrize(("name", "site", "words", "from_logits"), BROKEN)
def test_where_and_why_a_recording_diverges(
    record: Record, compare: Compare, launch: Path, name: str, site: str, words: str, from_logits: str
) -> None:
    record(name)
    assert compare("hydra.run.dir=all").code == 1
    record(name, keep=lambda site: False)
    assert compare("hydra.run.dir=logits").code == 1
    for folder, place, cause in (("all", site, words), ("logits", "logits: lm_head", from_logits)):
        (summary,) = read_csv(launch / folder / "summary.csv")
        assert summary["first_divergence"] == place
        assert_in(summary["probable_cause"], *cause.split(" ... "))
        assert summary["probable_cause"].startswith("unknown") == cause.startswith("unknown")


def test_mistakes_that_a_recording_does_not_tell_apart_are_named_together(
    record: Record, compare: Compare, launch: Path
) -> None:
    """The first layer's c_attn is all that tells: its input is the embeddings, in both mistakes."""

    def shift(tensors: dict[str, Tensor]) -> None:
        tensors["logits"] += torch.linspace(0, 1, 300)

    record("no_ln_1", keep=lambda site: site == "h.0.attn.c_attn", change=shift)
    assert compare().code == 1
    cause = summary_of(launch)["probable_cause"]
    assert_in(cause, "unknown: 5 mistakes explain it equally well", "norm skipped: ln_1", "post-norm")


def test_a_few_mistakes_that_fit_equally_well_are_all_named() -> None:
    expected, target = torch.full((2, 3), 1.0).double(), torch.full((2, 3), 2.0).double()
    facts = SimpleNamespace(tolerance=1e-5, rounding=1e-7, record=SimpleNamespace(exact=torch.float64))

    def cause(*trials: tuple[str, float]) -> Cause | None:
        made = [Trial(Cause(name), target + off, target + off) for name, off in trials]
        return named(facts, made, target, expected)  # type: ignore[arg-type]

    assert cause(("far", 1e-3), ("within the tolerance, but not within rounding", 2e-6)) is None
    assert cause(("a", 1e-8)) == Cause("a")
    assert cause(("a", 1e-8), ("the same function", 1e-8)) == Cause("a")
    assert cause(("a", 1e-8), ("b", 2e-8)) == Cause("a, or b: the recording does not tell which")
    assert cause(("a", 1e-8), ("too far to be as likely", 2e-7)) == Cause("a")


def test_a_module_that_ends_elsewhere_is_not_wrong_where_the_logits_agree(
    record: Record, compare: Compare, launch: Path
) -> None:
    record(change=lambda tensors: tensors["outputs/h.0.attn"].mul_(2))
    assert compare().code == 0
    (row,) = [row for row in rows_of(launch, "layers") if row["status"] == "skipped"]
    assert (row["site"], "the logits agree" in row["note"]) == ("h.0.attn", True)


def test_a_recording_that_is_less_accurate_than_its_dtype(record: Record, compare: Compare, launch: Path) -> None:
    def blur(tensors: dict[str, Tensor]) -> None:
        tensors["logits"] *= 1 + 5e-6 * torch.randn(T, 300).sign()

    record(change=blur)
    assert compare().code == 1
    assert_in(summary_of(launch)["probable_cause"], "the same function, but its rounding error is", "times")


def test_log_probabilities(record: Record, compare: Compare, launch: Path) -> None:
    def normalize(tensors: dict[str, Tensor]) -> None:
        tensors["logprobs"] = tensors.pop("logits").log_softmax(-1)

    record(change=normalize)
    assert compare("hydra.run.dir=right").code == 0
    record("act_erf", keep=lambda site: False, change=normalize)
    assert compare("hydra.run.dir=wrong").code == 1
    assert_in(read_csv(launch / "wrong" / "summary.csv")[0]["probable_cause"], "exact (erf) GELU")


def test_other_names_and_a_batch_dimension(record: Record, compare: Compare, launch: Path) -> None:
    def rename(tensors: dict[str, Tensor]) -> None:
        for name in list(tensors):
            tensors[name.replace("h.", "blocks/").replace("outputs/wte", "outputs/transformer.wte")] = tensors.pop(name)
        tensors["logits"] = tensors["logits"][0]

    record(change=rename)
    assert_in(compare().error(), "no module 'blocks/0")
    assert compare("subject.rename=[['^blocks/','h.']]").code == 0
    assert {row["status"] for row in rows_of(launch, "layers")} == {"ok"}


def test_ids_in_a_file_beside_it(record: Record, compare: Compare, launch: Path) -> None:
    tensors = load_file(record())
    save_file(tensors, launch / "a.safetensors")
    assert_in(compare().error(), "no token ids", "a.json")
    (launch / "a.json").write_text(json.dumps({"ids": IDS, "dtype": "float32", "engine": "mine"}))
    assert compare().code == 0
    (launch / "a.json").write_text('{"ids": [5, ')
    assert_in(compare().error(), "a.json cannot be read as JSON")


def test_a_saved_reference(record: Record, compare: Compare, launch: Path) -> None:
    """It is saved with the ids of a recording, and refuses recordings of others."""
    record("act_erf")
    saving = ("task.save_reference=r.safetensors", "task.gen_prompt=be", "decode.max_new_tokens=2")
    assert compare(*saving, "hydra.run.dir=live").code == 1
    assert compare("task.reference=r.safetensors", "hydra.run.dir=saved").code == 1
    for table in ("parity.csv", "summary.csv"):
        assert read_csv(launch / "live" / table) == read_csv(launch / "saved" / table)
    record(ids=json.dumps(IDS[::-1]))
    assert_in(compare("task.reference=r.safetensors").error(), "other token ids than the saved reference", str(IDS))


def shaped(name: str, *shape: int) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: tensors.update({name: torch.zeros(shape)})


@pytest.mark.parametrize(
    ("change", "facts", "words"),
    [
        (lambda t: t.pop("logits"), {}, ["no logits", "logprobs [T, V]", "outputs/NAME"]),
        (shaped("logprobs", T, 300), {}, ["both logits and logprobs"]),
        (shaped("logits", T, 301), {}, ["logits has the shape [7, 301], not [T, V] = [7, 300]"]),
        (shaped("logits", 2, T, 300), {}, ["logits has the shape [2, 7, 300]"]),
        (shaped("outputs/h.0", T, 47), {}, ["outputs/h.0 has the shape [7, 47], not [7, 48]"]),
        (shaped("outputs/h.0.mpl", T, 48), {}, ["no module 'h.0.mpl'", "did you mean 'h.0.mlp'?"]),
        (shaped("h.0", T, 48), {}, ["'h.0' is no part of a recording", "outputs/NAME"]),
        (lambda t: t["logits"][0, 0, :3].fill_(float("nan")), {}, ["logits holds 3 values of 2,100 that are NaN"]),
        (lambda t: t["outputs/h.0"][0, 0, 0].fill_(float("inf")), {}, ["outputs/h.0 holds 1 values of 336"]),
        (lambda t: t.update(logits=torch.zeros(T, 300, dtype=torch.int32)), {}, ["logits holds int32, not floats"]),
        (None, {"ids": "[5, 72, 9, 100, 101, 33, 300]"}, ["token id 300 is not in", "vocabulary of 300 tokens"]),
        (None, {"ids": "[5, 72]"}, ["logits has the shape [7, 300], not [T, V] = [2, 300]"]),
        (None, {"ids": str([1] * 33)}, ["33 token ids do not fit", "context of 32"]),
        (None, {"ids": "[]"}, ["`ids` must be a list of the token ids"]),
        (None, {"ids": '"5 72"'}, ["`ids` must be a list of the token ids"]),
        (None, {"ids": "5, 72"}, ["`ids` in the metadata cannot be read as JSON"]),
        (None, {"dtype": "int8"}, ["dtype=int8: not one of float64, float32"]),
        (None, {"dtype": "float16"}, ["recorded in float16; add dtype=float16"]),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(
    record: Record, compare: Compare, launch: Path, change: Any, facts: dict[str, str], words: list[str]
) -> None:
    record(change=change or (lambda tensors: None), **facts)
    assert_in(compare().error(), "subject.target=a.safetensors: ", *words)
    assert not list(launch.glob("runs/*/*/summary.csv"))


@pytest.mark.parametrize("content", [b"", b"logits", b'{"ids": [1]}' * 9])
def test_what_is_no_safetensors_file_is_refused(compare: Compare, launch: Path, content: bytes) -> None:
    (launch / "a.safetensors").write_bytes(content)
    assert_in(compare().error(), "subject.target=a.safetensors: damaged, or no safetensors file")


def test_settings_that_do_not_go_with_a_recording(record: Record, compare: Compare, gpt2x: Cli) -> None:
    assert_in(gpt2x("subject=recorded").error(), "subject.target=FILE.safetensors")
    assert_in(gpt2x("subject.target=a.safetensors").error(), "add subject=recorded")
    assert_in(compare().error(), "no file a.safetensors")
    record()
    assert_in(compare("prompt=be").error(), "subject=recorded and prompt contradict")
    assert_in(compare("subject.weights=own").error(), "a recording holds no weights")
    assert_in(compare("task.stages=[loss]").error(), "only the stages layers and logits")
    assert_in(compare("dtype=int8").error(), "recorded in float32; add dtype=float32")


def test_other_weights_are_a_verdict(record: Record, compare: Compare, checkpoints: Checkpoints) -> None:
    record()
    result = compare(weights=checkpoints(seed=1))
    assert result.code == 1
    assert "first divergence: wte" in result.out


def test_from_python(record: Record, noisy: Path) -> None:
    record("act_erf")
    found = gpt2x.validate("a.safetensors", reference=str(noisy), stages=["layers", "logits"])
    assert (found.passed, found.first_divergence) == (False, "h.0.mlp.act")
    assert_in(found.probable_cause, "exact (erf) GELU")
    with pytest.raises(gpt2x.UserError, match="a recording has no heat map"):
        found.heat_map()
