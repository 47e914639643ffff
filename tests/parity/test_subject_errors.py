"""Subjects that misbehave get a bad row in parity.csv and exit code 1; what cannot be compared gets exit code 2."""

import shlex
from pathlib import Path

import pytest
import torch

from tests.conftest import REPO, Cli, assert_in, read_csv, run_dir
from tests.parity.conftest import PLAIN

SIZES = ("model.n_layer=2", "model.n_embd=32", "model.n_head=2", "model.n_positions=64")
SMALL = ("model=nano", "weights=random", *SIZES, "decode.max_new_tokens=2")
STAGES = "task.stages=[config,weights,layers,logits,generation]"

CODE = f"""
import sys
sys.path.append({str(REPO / "tests" / "subjects")!r})
import torch
from torch import nn
from plain import GPT2, mistake

def raises_in_init(a):
    raise KeyError("emb_dimm")

def fail(m, ids):
    raise ValueError("no\\n  forward")

def other_ids(m, ids):
    ids += 1
    return GPT2.forward(m, ids)

def counts(m, x):
    m.calls += 1
    return m.lm_head(x) + m.calls * torch.arange(1024)

def nan_inside(a):
    model = GPT2(a)
    model.h[1].mlp.c_fc.forward = lambda x: x.repeat(1, 1, 4) / 0 * 0
    return model

def renamed(a):
    model = GPT2(a)
    model.positional, model.embed = model.wpe, lambda ids, places: model.wte(ids) + model.positional(places)
    del model.wpe
    return model

def narrow(a):
    a.vocab_size = 100
    return GPT2(a)

def nothing(a):
    pass

def typo(a):
    return GPT2(a.n_hats)

def two(a, b):
    return GPT2(a)

raises = mistake(GPT2, forward=fail)
exits = mistake(GPT2, forward=lambda m, ids: sys.exit(3))
silent = mistake(GPT2, forward=lambda m, ids: print("a debug line"))
text = mistake(GPT2, forward=lambda m, ids: "logits")
hidden_states = mistake(GPT2, head=lambda m, x: x)
last_only = mistake(GPT2, head=lambda m, x: m.lm_head(x[:, -1]))
time_first = mistake(GPT2, head=lambda m, x: m.lm_head(x).transpose(0, 1))
only_loss = mistake(GPT2, head=lambda m, x: (torch.tensor(0.0), None))
width_first = mistake(GPT2, head=lambda m, x: m.lm_head(x).transpose(1, 2))
nan = mistake(GPT2, head=lambda m, x: m.lm_head(x) * float("nan"))
infinite = mistake(GPT2, head=lambda m, x: m.lm_head(x) + float("inf"))
changes_ids = mistake(GPT2, forward=other_ids)
draws = mistake(GPT2, head=lambda m, x: m.lm_head(x + torch.rand_like(x)))
counting = mistake(GPT2, head=counts, calls=0)
empty = lambda a: nn.Identity()
a_string = lambda a: "a model"
a_number = 5
instance = nn.Linear(1, 1)
"""


@pytest.fixture
def subjects(launch: Path, tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(CODE)
    return file


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("raises_in_init", ["KeyError: 'emb_dimm'", "mine.py, line 9"]),
        ("raises", ["ValueError: no forward", "mine.py, line 12"]),
        ("exits", ["SystemExit: 3", "mine.py, line 4"]),
        ("silent", ["answers without logits"]),
        ("text", ["answers without logits"]),
        ("last_only", ["answers with the shape [1, 1024]"]),
        ("time_first", ["answers with the shape [20, 1, 1024]"]),
        ("only_loss", ["answers with the shape []"]),
        ("width_first", ["answers with the shape [1, 1024, 20]"]),
        ("empty", ["has no parameters"]),
        ("a_string", ["makes a str, not a torch.nn.Module"]),
        ("nothing", ["makes a NoneType, not a torch.nn.Module"]),
        ("typo", ["n_hats", "does not know what", "mine.py, line"]),
        ("two", ["needs b", "does not know what that means"]),
    ],
)
def test_what_cannot_be_compared_has_no_verdict(
    gpt2x: Cli, launch: Path, subjects: Path, name: str, words: list[str]
) -> None:
    result = gpt2x(*SMALL, STAGES, f"subject.target={subjects}:{name}", "hydra.run.dir=out")
    assert result.code == 2
    assert "Traceback" not in result.err
    line = result.err.splitlines()[-1]  # the subject's own prints may come before
    assert_in(line, *words, f"mine.py:{name} could not be compared: ")
    assert "FAIL" not in result.out
    assert not (launch / "out" / "summary.csv").exists()


@pytest.mark.parametrize(
    ("name", "metric", "words"),
    [
        ("nan", "not_finite", []),
        ("nan_inside", "not_finite", []),
        ("infinite", "not_finite", []),
        ("changes_ids", "changed", ["changes the ids"]),
        ("draws", "difference_of_two_runs", ["two runs on the same input differ"]),
        ("counting", "difference_of_two_runs", ["keeps something from one call to the next"]),
    ],
)
def test_misbehaving_subject(
    gpt2x: Cli, launch: Path, subjects: Path, name: str, metric: str, words: list[str]
) -> None:
    result = gpt2x(*SMALL, STAGES, f"subject.target={subjects}:{name}")
    assert result.code == 1, result.err
    assert "Traceback" not in result.err
    assert "FAIL" in result.out
    (bad,) = [
        row
        for row in read_csv(run_dir(launch, "validate") / "parity.csv")
        if row["metric"] == metric and row["status"] not in ("ok", "skipped")
    ]
    assert_in(bad["note"], *words)
    (summary,) = read_csv(run_dir(launch, "validate") / "summary.csv")
    assert summary["verdict"] == "fail"
    assert summary["first_divergence"] != ""


def test_what_a_subject_prints_stays_off_stdout(gpt2x: Cli, subjects: Path) -> None:
    result = gpt2x(*SMALL, STAGES, f"subject.target={subjects}:silent")
    assert "a debug line" not in result.out


def test_what_a_subject_sets_for_its_process_is_put_back(gpt2x: Cli, launch: Path) -> None:
    (launch / "rude.py").write_text(
        f"""
import os, sys
import torch
sys.path.insert(0, {str(PLAIN.parent)!r})
from plain import GPT2
torch.set_grad_enabled(False)
torch.set_num_threads(3)

class Rude(GPT2):
    def forward(self, ids):
        os.chdir("/")
        torch.set_grad_enabled(False)
        return super().forward(ids)
"""
    )
    threads = torch.get_num_threads()
    stages = "task.stages=[config,layers,logits,loss,gradients]"
    result = gpt2x("-m", *SMALL, stages, "subject.target=rude.py:Rude,rude.py:GPT2")
    assert "Traceback" not in result.err
    assert result.code == 0, result.out
    assert torch.is_grad_enabled()
    assert torch.get_num_threads() == threads
    (folder,) = (launch / "runs" / "sweeps").iterdir()
    assert [row["status"] for row in read_csv(folder / "jobs.csv")] == ["done", "done"]


def test_parameters_that_match_no_name(gpt2x: Cli, launch: Path, subjects: Path) -> None:
    """With rules of the user's own, nothing is looked for beyond them. The line has the setting that mends it."""
    target = f"subject.target={subjects}:renamed"
    line = gpt2x(*SMALL, STAGES, target, "subject.rename=[[no_such_name,wpe]]", "hydra.run.dir=a").error()
    assert_in(line, "cannot tell which of its parameters are wpe.weight; without names are positional.weight")
    setting = next(word for word in shlex.split(line) if word.startswith("subject.rename="))
    assert gpt2x(*SMALL, STAGES, target, setting).code == 0


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("nowhere.py:GPT2", ["nowhere.py", "no file"]),
        ("mine.py:silnet", ["no 'silnet' in", "did you mean 'silent'?"]),
        ("mine.py", ["path/to/file.py:name"]),
        ("mine.py:", ["path/to/file.py:name"]),
        ("nowhere.model:GPT2", ["cannot be imported", "nowhere"]),
        ("syntax.py:GPT2", ["cannot be imported", "SyntaxError", "syntax.py, line 2"]),
        ("imports.py:GPT2", ["no 'GPT2' in imports.py"]),
        ("mine.py:instance", ["Linear", "name a class"]),
        ("mine.py:a_number", ["int", "name a class"]),
    ],
)
def test_bad_target(gpt2x: Cli, launch: Path, subjects: Path, target: str, words: list[str]) -> None:
    for name, code in {
        "syntax": "\ndef GPT2(a:\n",
        "imports": "import no_such_module",
    }.items():
        (launch / f"{name}.py").write_text(code)
    (launch / "mine.py").write_text(subjects.read_text())
    line = gpt2x(*SMALL, f"subject.target={target}").error()
    assert_in(line, f"subject.target={target}", *words)
    assert not (launch / "runs").exists()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import no_such_module", ["ModuleNotFoundError", "no_such_module", "whole.py, line 1"]),
        ("1 / 0", ["ZeroDivisionError", "whole.py, line 1"]),
        ("raise SystemExit(0)", ["SystemExit"]),
    ],
)
def test_whole_file_that_fails(gpt2x: Cli, launch: Path, code: str, words: list[str]) -> None:
    (launch / "whole.py").write_text(code)
    line = gpt2x(*SMALL, "subject.target=whole.py:GPT2", "subject.import=whole").error()
    assert_in(line, "subject.target=whole.py:GPT2: cannot be imported", *words)
    assert not (launch / "runs").exists()


@pytest.mark.parametrize(
    ("arg", "words"),
    [
        ("subject.rename=[['(a',b]]", ["subject.rename", "(a", "regular expression"]),
        (r"subject.rename=[[wte,'\3']]", ["subject.rename", "\\3", "group"]),
        ("subject.rename=[[a]]", ["subject.rename", "pair"]),
        ("subject.rename=[['ln_1',ln_2]]", ["subject.rename makes both", "h.0.ln_1.weight", "h.0.ln_2.weight"]),
        ("subject.import_seconds=0", ["subject.import_seconds=0", "at least 1"]),
        ("subject.weights=wrong", ["subject.weights=wrong", "copy, own"]),
        ("task.stages=[nonsense]", ["task.stages=nonsense", "config, tokenizer"]),
        ("task.stages=[logit]", ["task.stages=logit", "did you mean 'logits'?"]),
        ("task.stages=[]", ["task.stages", "config, tokenizer"]),
        ("subject=bok", ["subject=bok", "did you mean 'book'?"]),
        ("subject.targt=x", ["subject.targt", "did you mean 'subject.target'?"]),
    ],
)
def test_bad_setting(gpt2x: Cli, launch: Path, arg: str, words: list[str]) -> None:
    plain = REPO / "tests" / "subjects" / "plain.py"
    assert_in(gpt2x(*SMALL, f"subject.target={plain}:GPT2", arg).error(), *words)
    assert not (launch / "runs").exists()
