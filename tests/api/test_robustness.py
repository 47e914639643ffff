"""What users of the Python API found: models that a function already has, random numbers, and control characters."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn
from transformers import GPT2LMHeadModel

import gpt2x
from tests.conftest import NANO, Cli


def test_a_function_may_return_a_model_that_exists_already() -> None:
    model = GPT2LMHeadModel.from_pretrained(NANO)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = gpt2x.validate(lambda: model, reference="nano", stages=["config", "weights", "layers", "logits"])
    assert found.passed, found
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_first_use_leaves_the_random_numbers_of_python() -> None:
    code = "import random; before = random.getstate(); import gpt2x; gpt2x.load; print(random.getstate() == before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "True\n"


class Rude(nn.Module):
    """A model with a parameter that nobody else has, and whose name clears a terminal."""

    def __init__(self) -> None:
        super().__init__()
        self.model = GPT2LMHeadModel.from_pretrained(NANO)
        self.register_parameter("\x1b[2J", nn.Parameter(torch.ones(1)))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(ids).logits
        return logits + self.get_parameter("\x1b[2J") * logits.square()


def test_no_escape_sequence_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    stages = ["weights"]
    found = gpt2x.validate(Rude, reference="nano", stages=stages, rename=[["^model.", ""]])
    Console().print(found)
    for text in (repr(found), found._repr_html_(), capsys.readouterr().out):
        assert "\x1b[2J" not in text
        assert "␛" in text


@pytest.mark.parametrize("manifest", [[], {"config": None}, {"config": {"task": "x"}}])
def test_a_manifest_of_another_form_is_replaced_by_the_job(gpt2x_process: Cli, launch: Path, manifest: object) -> None:
    args = ("task=generate", "decode.max_new_tokens=1", "decode.lookup=true", "hydra.run.dir=out")
    assert gpt2x_process(*args).code == 0
    (launch / "out" / "manifest.json").write_text(json.dumps(manifest))
    assert gpt2x.read_runs(launch)["decode.lookup"].tolist() == [True]


def test_a_row_of_another_length_is_named(gpt2x_process: Cli, launch: Path) -> None:
    assert gpt2x_process("task=generate", "decode.max_new_tokens=1", "hydra.run.dir=out").code == 0
    table = launch / "out" / "generations.csv"
    table.write_bytes(table.read_bytes().rsplit(b",", 1)[0] + b"\r\n")
    with pytest.raises(gpt2x.UserError, match=r"generations.csv: cannot be read: a row has another number of fields"):
        gpt2x.read_runs(launch)
