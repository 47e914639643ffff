"""validate() in the Python API: models as objects, and how the result is shown."""

import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

import gpt2x
from gpt2x import api
from gpt2x.parity.subject.constructing.architecture import Architecture
from tests.conftest import Cli, assert_in, read_csv, run_dir, tiny_hf
from tests.subjects import plain

STAGES = ["config", "weights", "layers", "logits", "gradients"]
TEXTS: dict[str, Any] = {"prompt": "to be, or not", "gen_prompt": "be", "max_new_tokens": 4}


@pytest.fixture
def architecture(noisy: Path) -> Architecture:
    return Architecture(api.load(noisy)[0].config)


def test_it_finds_what_the_task_finds(gpt2x: Cli, noisy: Path, launch: Path) -> None:
    found = api.validate(plain.act_erf, reference=noisy, **TEXTS)
    texts = ('prompt="to be, or not"', "task.gen_prompt=be", "decode.max_new_tokens=4")
    assert gpt2x(f"subject.target={plain.__file__}:act_erf", f"weights.path={noisy}", *texts).code == 1
    rows = read_csv(run_dir(launch, "validate") / "parity.csv")
    assert list(found.checks.columns) == list(rows[0])
    for column in ("stage", "site", "mode", "metric", "status"):
        assert found.checks[column].tolist() == [row[column] for row in rows]
    assert (found.passed, found.first_divergence) == (False, "h.0.mlp.act")
    assert found.probable_cause == "exact (erf) GELU instead of tanh"


@pytest.mark.parametrize(("name", "site"), [("GPT2", ""), ("act_erf", "h.0.mlp.act"), ("no_ln_f", "input of lm_head")])
def test_all_ways_to_name_a_model_find_the_same(architecture: Architecture, noisy: Path, name: str, site: str) -> None:
    make = getattr(plain, name)
    for subject in (make, make(architecture), f"{plain.__file__}:{name}"):
        found = api.validate(subject, reference=noisy, stages=STAGES, **TEXTS)
        assert (found.passed, found.first_divergence) == (name == "GPT2", site)


def test_gpt2x_itself_and_a_loaded_model(noisy: Path) -> None:
    model, tokenizer = api.load(noisy, device="cpu")
    assert api.validate(reference=noisy, **TEXTS).passed
    assert api.validate(reference=(model, tokenizer), **TEXTS).passed
    assert api.validate(model, reference=model, stages=STAGES, **TEXTS).passed


def test_hugging_faces_own_model_passes(noisy: Path) -> None:
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel.from_pretrained(noisy)
    assert api.validate(model, reference=noisy, weights="own", stages=STAGES, **TEXTS).passed


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_the_dtype_is_that_of_the_reference(architecture: Architecture, noisy: Path, dtype: str) -> None:
    reference = api.load(noisy, dtype=dtype, device="cpu")
    assert api.validate(plain.GPT2(architecture), reference=reference, stages=STAGES, **TEXTS).passed
    assert not api.validate(plain.act_erf(architecture), reference=reference, stages=STAGES, **TEXTS).passed


def test_own_weights_are_checked(architecture: Architecture, noisy: Path) -> None:
    found = api.validate(plain.GPT2(architecture), reference=noisy, weights="own", stages=STAGES, **TEXTS)
    assert not found.passed


def test_a_saved_reference(gpt2x: Cli, architecture: Architecture, noisy: Path, launch: Path) -> None:
    texts = ('prompt="to be, or not"', "task.gen_prompt=be", "decode.max_new_tokens=4")
    assert gpt2x(f"weights.path={noisy}", "task.save_reference=saved.safetensors", *texts).code == 0
    found = api.validate(plain.act_erf(architecture), reference=noisy, saved_reference=Path("saved.safetensors"))
    assert found.first_divergence == "h.0.mlp.act"


class RoundedConstant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("c", torch.tensor(math.sqrt(2 / math.pi)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * x * (1 + torch.tanh(self.c * (x + 0.044715 * x**3)))


def test_a_constant_that_was_rounded_when_the_model_was_built(architecture: Architecture, noisy: Path) -> None:
    def make(architecture: Architecture) -> nn.Module:
        model = plain.GPT2(architecture)
        for block in model.h:
            block.mlp.act = RoundedConstant()
        return model

    assert api.validate(make, reference=noisy, stages=STAGES, **TEXTS).passed
    found = api.validate(make(architecture), reference=noisy, stages=STAGES, **TEXTS)
    assert found.probable_cause == "tanh GELU with sqrt(2 / pi) in float32"


def snapshot(module: nn.Module) -> list[Any]:
    return [
        [
            (name, each.training, dict(each._forward_hooks), dict(each._forward_pre_hooks))
            for name, each in module.named_modules()
        ],
        [
            (name, id(p), p.requires_grad, p.dtype, p.tolist(), p._version, None if p.grad is None else p.grad.tolist())
            for name, p in module.named_parameters()
        ],
    ]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["GPT2", "act_erf", "dropout_attention"])
def test_the_callers_model_is_never_changed(architecture: Architecture, noisy: Path, name: str, training: bool) -> None:
    module = getattr(plain, name)(architecture).train(training)
    module.h[0].requires_grad_(False)
    module.h[1].register_forward_hook(lambda module, args, output: None)
    module(torch.tensor([[1, 2, 3]])).sum().backward()
    before = snapshot(module)
    api.validate(module, reference=noisy, stages=STAGES, **TEXTS)
    assert snapshot(module) == before


def test_the_loaded_reference_is_never_changed(noisy: Path) -> None:
    for dtype in ("float32", "float64"):
        model, _ = api.load(noisy, dtype=dtype, device="cpu")
        model.train().requires_grad_(True)
        model(torch.tensor([[1, 2, 3]])).sum().backward()
        before = snapshot(model)
        api.validate(reference=model, **TEXTS)
        api.validate(model, reference=model, stages=STAGES, **TEXTS)
        assert snapshot(model) == before


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"n_embd": 24}, ["n_embd=24", "n_embd=48", "reference=PATH"]),
        ({"n_layer": 2}, ["n_layer=2", "n_layer=3"]),
        ({"n_positions": 64}, ["n_positions=64"]),
        ({"vocab_size": 1024, "n_positions": 256, "n_embd": 256, "n_layer": 4}, ["reference='nano'"]),
    ],
)
def test_a_model_of_another_size_is_refused(noisy: Path, sizes: dict[str, int], words: list[str]) -> None:
    settings = {"n_layer": 3, "n_embd": 48, "n_head": 3, "n_positions": 32, "vocab_size": 300, **sizes}
    settings["n_head"] = 4 if settings["n_embd"] == 256 else 3
    model = tiny_hf(**settings)
    with pytest.raises(gpt2x.UserError) as raised:
        api.validate(model, reference=noisy, **TEXTS)
    assert_in(str(raised.value), "GPT2LMHeadModel has", "the reference has", *words)


def test_a_model_that_cannot_be_copied_is_refused(architecture: Architecture, noisy: Path) -> None:
    module = plain.GPT2(architecture)
    module.kept = module(torch.tensor([[1, 2]]))  # not a leaf of the graph: copy.deepcopy refuses it
    with pytest.raises(gpt2x.UserError, match=r"copy\.deepcopy fails"):
        api.validate(module, reference=noisy, **TEXTS)


class Hostile(plain.GPT2):
    """Answers once; what fails later is a part of the verdict."""

    calls = 0

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls > 1:
            raise ValueError("<script>alert('$x')</script>")
        return super().forward(ids)


Hostile.__qualname__ = "<img src=x>"


def test_text_of_the_model_is_escaped(noisy: Path, architecture: Architecture) -> None:
    html = api.validate(Hostile(architecture), reference=noisy, stages=STAGES, **TEXTS)._repr_html_()
    assert set(re.findall(r"</?(\w+)", html)) <= {"p", "strong", "table", "tr", "th", "td", "br", "img"}
    assert "&lt;script&gt;alert(" in html
    assert "&lt;img src=x&gt;" in html


def test_a_name_that_is_html_and_mathematics(noisy: Path, architecture: Architecture) -> None:
    subject = plain.act_erf(architecture)
    subject.__class__ = type("Named", (plain.GPT2,), {"__qualname__": '"><script>$x^{$'})
    html = api.validate(subject, reference=noisy, stages=STAGES, **TEXTS)._repr_html_()
    assert "<script" not in html
    assert_in(html, "&lt;script&gt;$x^{$", 'alt="The error of each module of &quot;&gt;&lt;script')


def test_how_a_result_is_shown(noisy: Path, architecture: Architecture) -> None:
    found = api.validate(plain.act_erf(architecture), reference=noisy, stages=STAGES, **TEXTS)
    html = found._repr_html_()
    assert_in(html, "FAIL", "h.0.mlp.act", "exact (erf) GELU instead of tanh", 'src="data:image/png;base64,iVBORw0KGgo')
    assert_in(html, "same function?   no", "of the reference&#x27;s scale")
    assert_in(repr(found), "FAIL", "h.0.mlp.act", "exact (erf) GELU instead of tanh")
    console = Console(width=150, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(found)
    assert_in(console.export_text(), "FAIL", "h.0.mlp.act", "gradients", "same function?")
    assert found.heat_map().get_suptitle().startswith("GPT2: each module")


def test_without_layers_there_is_no_heat_map(noisy: Path) -> None:
    found = api.validate(reference=noisy, stages=["logits"], **TEXTS)
    assert_in(found._repr_html_(), "PASS")
    assert "<img" not in found._repr_html_()
    with pytest.raises(gpt2x.UserError, match="layers"):
        found.heat_map()


def test_a_model_called_gpt2x_is_not_gpt2xs_own(noisy: Path, architecture: Architecture) -> None:
    subject = type("gpt2x", (plain.GPT2,), {})(architecture)
    assert api.validate(subject, reference=noisy, **TEXTS).passed


def test_importing_the_package_imports_no_pandas() -> None:
    code = (
        "import sys, gpt2x; gpt2x.UserError; dir(gpt2x); print({'torch', 'pandas', 'rich', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
