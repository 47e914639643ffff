"""task.suggest: the change that mends a cause is shown, verified, and written as a patch that git applies."""

import ast
import re
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from gpt2x.parity.causes import Cause, Kind
from tests.conftest import REPO, Refused, read_csv, run_dir
from tests.parity.conftest import PLAIN, Validate

STAGES = "task.stages=[config,weights,layers,logits]"

MODEL = (REPO / "tests/subjects/nanogpt.py").read_text().rstrip()  # without a line feed at its end

# cause -> (the right line, the mistake in it, what is proposed; by default the right line)
KINDS = {
    "exact (erf) GELU instead of tanh": ('nn.GELU(approximate="tanh")', "nn.GELU()", None),
    "ReLU instead of tanh GELU": ('nn.GELU(approximate="tanh")', "nn.ReLU()", None),
    "SiLU instead of tanh GELU": (
        "self.gelu(self.c_fc(x))",
        "F.silu(self.c_fc(x))",
        'F.gelu(self.c_fc(x), approximate="tanh")',
    ),
    "tanh GELU with 0.44715 instead of 0.044715": (
        "self.gelu(self.c_fc(x))",
        "f(x + 0.44715 * x**3)",
        "f(x + 0.044715 * x**3)",
    ),
    "tanh GELU with 2 / pi for sqrt(2 / pi)": (
        "self.gelu(self.c_fc(x))",
        "torch.tanh(2 / math.pi * x)",
        "torch.tanh(0.7978845608028654 * x)",
    ),
    "LayerNorm eps 1e-06 instead of 1e-05": (
        "self.ln_2 = nn.LayerNorm(config.n_embd)",
        "self.ln_2 = nn.LayerNorm(config.n_embd, eps=1e-6)",
        "self.ln_2 = nn.LayerNorm(config.n_embd, eps=1e-5)",
    ),
    "LayerNorm with the unbiased variance (n - 1)": (
        "return self.c_proj(y.transpose",
        "x.var(-1, keepdim=True); return self.c_proj(y.transpose",
        "x.var(-1, keepdim=True, unbiased=False); return self.c_proj(y.transpose",
    ),
    "missing bias": (
        "3 * config.n_embd)",
        "3 * config.n_embd, bias=False)",
        "3 * config.n_embd, bias=True)",
    ),
    "attention scaled by width: 1/sqrt(n_embd)": (
        "(q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))",
        "(q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(C))",
        "q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5",
    ),
    "attention scores not scaled by 1/sqrt(head width)": (
        "(q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))",
        "torch.matmul(q, k.transpose(-2, -1))",
        "torch.matmul(q, k.transpose(-2, -1)) / q.shape[-1] ** 0.5",
    ),
    "q, k and v in another order: k, q, v": ("q, k, v = (", "k, q, v = (", None),
    "causal mask off by one: a token sees the next": (".triu(1)", ".triu(2)", None),
    "causal mask off by one: a token does not see itself": (".triu(1)", ".triu()", ".triu(diagonal=1)"),
    "causal mask filled with -1e-9 instead of -inf": ('float("-inf")', "-1e-9", None),
    "causal mask missing": (
        "F.softmax(att, dim=-1) @ v",
        "F.scaled_dot_product_attention(q, k, v)",
        "F.scaled_dot_product_attention(q, k, v, is_causal=True)",
    ),
    "causal mask inverted: a token sees only what follows": (".triu(1)", ".triu(1) == 0", ".triu(1) != 0"),
    "softmax over the wrong axis: queries instead of keys": ("F.softmax(att, dim=-1)", "F.softmax(att, dim=-2)", None),
    "heads merged without a transpose": ("y.transpose(1, 2).reshape(", "y.reshape(", None),
    "dropout active in eval mode": (
        "F.softmax(att, dim=-1) @",
        "F.dropout(F.softmax(att, dim=-1), 0.1) @",
        "F.dropout(F.softmax(att, dim=-1), 0.1, training=self.training) @",
    ),
    "attention weights rounded to float16": ("F.softmax(att, dim=-1) @", "F.softmax(att, dim=-1).half() @", None),
    "norms swapped: ln_2 before attention, ln_1 before the MLP": (
        "self.attn(self.ln_1(x))\n        x = x + self.mlp(self.ln_2(x))",
        "self.attn(self.ln_2(x))\n        x = x + self.mlp(self.ln_1(x))",
        None,
    ),
    "norm skipped: ln_2": ("self.mlp(self.ln_2(x))", "self.mlp(x)", None),
    "residual left out around the MLP": ("x = x + self.mlp", "x = self.mlp", None),
    "residual added twice around the MLP": ("x = x + self.mlp", "x = 2 * x + self.mlp", None),
    "post-norm instead of pre-norm": (
        "x + self.attn(self.ln_1(x))\n        x = x + self.mlp(self.ln_2(x))",
        "self.ln_1(x + self.attn(x))\n        x = self.ln_2(x + self.mlp(x))",
        None,
    ),
    "norm skipped: ln_f": ("self.transformer.ln_f(x)", "x", None),
    "ln_f applied twice": ("self.transformer.ln_f(x)", "self.transformer.ln_f(self.transformer.ln_f(x))", None),
    "positions shifted: they begin at 1, not at 0": ("arange(t,", "arange(1, t + 1,", "arange(0, t,"),
    "position embedding left out": (
        "self.transformer.wte(idx) + self.transformer.wpe(pos)",
        "self.transformer.wte(idx)",
        "self.transformer.wte(idx) + self.transformer.wpe(torch.arange(idx.shape[-1], device=idx.device))",
    ),
    "embedding scaled by sqrt(n_embd)": (
        "self.transformer.wte(idx) +",
        "self.transformer.wte(idx) * math.sqrt(768) +",
        None,
    ),
    "layers skipped or repeated: h.0": (
        "in self.transformer.h:",
        "in self.transformer.h[:-1]:",
        "in list(self.transformer.h):",
    ),
    "layers not chained: each gets the embeddings, and only the last one counts": (
        "x = block(x)",
        "y = block(x)",
        "x = y = block(x)",
    ),
    "probabilities instead of logits: a softmax at the end": (
        "self.lm_head(self.transformer.ln_f(x))",
        "F.softmax(self.lm_head(self.transformer.ln_f(x)), dim=-1)",
        None,
    ),
    "logits soft-capped at 30, by tanh": (
        "self.lm_head(self.transformer.ln_f(x))",
        "30 * torch.tanh(self.lm_head(self.transformer.ln_f(x)) / 30)",
        None,
    ),
    "logits scaled by 0.5": (
        "self.lm_head(self.transformer.ln_f(x))",
        "self.lm_head(self.transformer.ln_f(x)) * 0.5",
        None,
    ),
}
FOUR = (
    ('nn.GELU(approximate="tanh")', "nn.GELU()"),
    ("nn.LayerNorm(config.n_embd)\n        self.", "nn.LayerNorm(config.n_embd, eps=1e-6)\n        self."),
    ("arange(t,", "arange(1, t + 1,"),
    ("self.transformer.ln_f(x)", "x"),
)
NAMES = {
    **{each: f"transformer.{each}" for each in ("wte", "wpe", "ln_f", "h.0")},
    **{f"h.0.{part}": f"transformer.h.0.{part}" for part in ("ln_1", "attn", "ln_2", "mlp")},
    "lm_head": "lm_head",
}


@cache
def known_causes() -> dict[str, Cause]:
    """The causes that a model can have, by their texts."""
    from gpt2x.model.config import GPT2Config
    from gpt2x.model.gpt2 import GPT2
    from gpt2x.parity.diagnosis.end import cause_at_the_end
    from gpt2x.parity.mistakes import mistakes_in
    from gpt2x.parity.mistakes.wiring import wiring_mistakes

    model = GPT2(GPT2Config(vocab_size=60, n_positions=16, n_embd=48, n_layer=2, n_head=3))
    logits = torch.randn(5, 60, dtype=torch.float64)
    ends = [logits.softmax(-1), 30 * (logits / 30).tanh(), logits * 0.5]
    mistakes = [
        *mistakes_in(model.transformer),
        *wiring_mistakes(model.transformer, [0], inside=False),
        *filter(None, (cause_at_the_end(model, end, logits, 1e-9) for end in ends)),
    ]
    others = [
        Cause("dropout active in eval mode", kind=Kind.DROPOUT),
        Cause("a bias that GPT-2 has not: lm_head.bias", kind=Kind.HEAD_BIAS),
    ]
    return {cause.text.partition(" (in ")[0]: cause for cause in (*(each.cause for each in mistakes), *others)}


def broken(*mistakes: tuple[str, str]) -> str:
    text = MODEL
    for right, wrong in mistakes:
        assert right in text
        text = text.replace(right, wrong)
    return text


@pytest.mark.parametrize("cause", KINDS)
def test_change_is_proposed(tmp_path: Path, cause: str) -> None:
    from gpt2x.parity.suggesting.code import Code, Node, SourceFile
    from gpt2x.parity.suggesting.kinds import changes_for
    from gpt2x.parity.suggesting.patch import edited

    right, wrong, proposed = KINDS[cause]
    (tmp_path / "model.py").write_text(broken((right, wrong)))
    file = SourceFile(tmp_path / "model.py")
    roots = [Node(file, each) for each in file.statements if isinstance(each, ast.ClassDef)]
    block = [root for root in roots if root.tree.name == "Block"]
    own_name = "transformer.h.0.attn.c_attn" if cause == "missing bias" else ""
    changes = changes_for(Code(known_causes()[cause], own_name, {}, NAMES, 1e-5, block, roots))
    texts = [edited(file.data, change).decode() for change in changes]
    assert broken((right, proposed or right)) in texts[:4]


def test_kinds_that_can_be_mended_are_those_of_known_causes() -> None:
    from gpt2x.parity.suggesting.kinds import FIXES

    assert {cause.kind for cause in known_causes().values()} >= FIXES.keys()


def patch_of(launch: Path) -> Path:
    return run_dir(launch, "validate") / "suggestion.patch"


def stages_timed(launch: Path) -> set[str]:
    return {row["stage"] for row in read_csv(run_dir(launch, "validate") / "timing.csv")}


def test_patch_mends_all_causes(validate: Validate, launch: Path) -> None:
    """Four causes, in a file without a line feed at its end."""
    file = launch / "model.py"
    file.write_text(text := broken(*FOUR))
    result = validate("model.py:GPT", STAGES, "task.suggest=true")
    assert result.code == 1
    line = text[: text.index("nn.GELU()")].count("\n") + 1
    fixes = re.findall(rf"fix \d  model.py:{line}  verified\n +- (.*)\n +\+ (.*)\n", result.out)
    assert fixes == [("self.gelu = nn.GELU()", 'self.gelu = nn.GELU(approximate="tanh")')]
    assert len(re.findall(r"^fix \d .* verified$", result.out, re.MULTILINE)) == 4
    causes = read_csv(run_dir(launch, "validate") / "causes.csv")
    assert [(row["file"], row["line"]) for row in causes if "GELU" in row["cause"]] == [("model.py", str(line))]
    assert "suggest" in stages_timed(launch)
    assert "with them, validate passes" in result.out
    assert max(map(len, result.out.partition("validate passes")[0].splitlines())) <= 80
    assert file.read_text() == text
    subprocess.run(["git", "apply", str(patch_of(launch))], cwd=launch, check=True)
    assert file.read_text() == broken(*FOUR[:1], *FOUR[2:]).replace("nn.GELU()", FOUR[0][0]).replace(
        "nn.LayerNorm(config.n_embd)\n        self.", "nn.LayerNorm(config.n_embd, eps=1e-5)\n        self."
    ).replace("arange(1, t + 1,", "arange(0, t,").replace("self.lm_head(x)", "self.lm_head(self.transformer.ln_f(x))")
    assert validate("model.py:GPT", STAGES).code == 0


@pytest.mark.parametrize("how", ["definitions", "whole"])
def test_mistake_lies_in_another_file_of_the_project(validate: Validate, launch: Path, how: str) -> None:
    """With line ends of Windows, in a package of a src layout, seen from elsewhere."""
    package = launch / "project" / "src" / "gpt"
    package.mkdir(parents=True)
    head, _, rest = broken(FOUR[0]).partition("class MLP")
    mlp, _, tail = rest.partition("class Block")
    (package / "__init__.py").touch()
    layers = f"import torch.nn as nn\n\n\nclass MLP{mlp.rstrip()}\n".replace("\n", "\r\n").encode()
    (package / "layers.py").write_bytes(layers)
    (package / "model.py").write_text(f"{head}from .layers import MLP\n\n\nclass Block{tail}\n")
    target = "project/src/gpt/model.py:GPT"
    result = validate(target, STAGES, f"subject.import={how}", "task.suggest=true")
    assert "fix 1  project/src/gpt/layers.py:8  verified" in result.out
    assert (package / "layers.py").read_bytes() == layers
    subprocess.run(["git", "apply", str(patch_of(launch))], cwd=launch, check=True)
    right = layers.replace(b"nn.GELU()", b'nn.GELU(approximate="tanh")')
    assert (package / "layers.py").read_bytes() == right


def test_mistake_lies_in_a_module_that_python_itself_finds(
    validate: Validate, launch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere, mine = launch / "elsewhere", launch / "mine"
    elsewhere.mkdir()
    mine.mkdir()
    (mine / "README.md").touch()  # the root of the project
    head, _, rest = broken(FOUR[0]).partition("class MLP")
    mlp, _, tail = rest.partition("class Block")
    (elsewhere / "their_layers.py").write_text(f"import torch.nn as nn\n\n\nclass MLP{mlp}")
    (mine / "model.py").write_text(f"{head}from their_layers import MLP\n\n\nclass Block{tail}\n")
    monkeypatch.syspath_prepend(elsewhere)
    result = validate("mine/model.py:GPT", STAGES, "task.suggest=true")
    assert "fix 1  elsewhere/their_layers.py:8  verified" in result.out


def test_what_cannot_be_mended_remains(validate: Validate, launch: Path) -> None:
    (launch / "model.py").write_text(PLAIN.read_text() + "\nboth = several(alibi, positions_later)\n")
    result = validate("model.py:both", STAGES, "task.suggest=true")
    assert result.code == 1
    assert re.findall(r"^fix (\d)", result.out, re.MULTILINE) == ["2"]
    assert "with them, 1 cause remains" in result.out
    assert "arange(ids.shape[1]) + 1)" in patch_of(launch).read_text()


def test_wrong_proposals_are_not_suggested(validate: Validate, launch: Path) -> None:
    """The first proposal leaves the division where it is."""
    (launch / "model.py").write_text(PLAIN.read_text())
    result = validate("model.py:scale_n_head", STAGES, "task.suggest=true")
    assert "with them, validate passes" in result.out
    subprocess.run(["git", "apply", str(patch_of(launch))], cwd=launch, check=True)
    assert validate("model.py:scale_n_head", STAGES).code == 0


def test_nothing_is_found(validate: Validate, launch: Path) -> None:
    result = validate("alibi", STAGES, "task.suggest=true")
    assert "no change was found that mends a cause" in result.out
    assert [row["file"] + row["line"] for row in read_csv(run_dir(launch, "validate") / "causes.csv")] == [""]
    assert "suggest" not in stages_timed(launch)
    assert not patch_of(launch).exists()


def test_without_code_of_yours_nothing_can_be_suggested(refused: Refused) -> None:
    assert "subject.target=FILE.py:NAME" in refused("task.suggest=true")


def test_proposal_is_shown_without_being_verified(
    validate: Validate, launch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpt2x.tasks import validate as task

    validations = []
    real: Callable = task.validate
    monkeypatch.setattr(task, "validate", lambda *args, **kwargs: validations.append(1) or real(*args, **kwargs))
    (launch / "model.py").write_text(broken(FOUR[0]))
    result = validate("model.py:GPT", STAGES)
    assert re.search(r"fix 1  model.py:\d+  not verified\n +- self.gelu = nn.GELU\(\)\n", result.out)
    assert "task.suggest=true" in result.out
    assert not patch_of(launch).exists()
    assert len(validations) == 1
