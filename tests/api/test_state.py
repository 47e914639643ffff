"""The functions of the Python API leave the state of the process as they found it, also when they raise."""

import logging
import os
import random
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.utils import logging as transformers_logging

import gpt2x
from gpt2x import api
from gpt2x.process import state_kept
from tests.subjects.plain import GPT2


class Rude(GPT2):
    """Changes all that it can reach."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)
        torch.set_default_dtype(torch.float16)
        torch.set_grad_enabled(False)
        torch.set_num_threads(3)
        os.chdir("/")
        os.environ["RUDE"] = "1"
        os.environ.pop("HOME", None)
        sys.path.append("/rude")
        warnings.simplefilter("error")
        logging.getLogger().setLevel(logging.DEBUG)
        logging.getLogger().addHandler(logging.NullHandler())
        logging.disable()
        return super().forward(ids)


class Failing(Rude):
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        super().forward(ids)
        raise KeyboardInterrupt


def state() -> dict[str, Any]:
    return {
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "threads": torch.get_num_threads(),
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),
        "python": random.getstate(),
        "environment": dict(os.environ),
        "path": list(sys.path),
        "folder": Path.cwd(),
        "filters": list(warnings.filters),
        "logging": (logging.root.level, list(logging.root.handlers), logging.root.manager.disable),
        "transformers": (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()),
    }


def raising(call: Callable[[], object], error: type[BaseException]) -> Callable[[], None]:
    def run() -> None:
        with pytest.raises(error):
            call()

    return run


STAGES = ["config", "layers", "logits", "gradients"]
CALLS = {
    "load": lambda: api.load("nano"),
    "generate": lambda: api.generate("x", model="nano", max_new_tokens=2),
    "evaluate": lambda: api.evaluate("to be, or not", model="nano"),
    "validate": lambda: api.validate(reference="nano"),
    "rude": lambda: api.validate(Rude, reference="nano", stages=STAGES),
    "load raises": raising(lambda: api.load("none"), gpt2x.UserError),
    "generate raises": raising(lambda: api.generate("x" * 9999, model="nano"), gpt2x.UserError),
    "evaluate raises": raising(lambda: api.evaluate("x", model="nano", stride=0), gpt2x.UserError),
    "validate raises": raising(lambda: api.validate(Failing, reference="nano"), KeyboardInterrupt),
    "read_runs raises": raising(lambda: api.read_runs("."), gpt2x.UserError),
}


@pytest.mark.parametrize("name", CALLS)
def test_state_is_as_it_was(name: str, launch: Path) -> None:
    transformers_logging.set_verbosity_warning()
    before = state()
    CALLS[name]()
    assert state() == before


@pytest.mark.parametrize("name", ["load", "generate", "evaluate", "validate"])
def test_unusual_state_does_not_matter(name: str, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode(), torch.device("meta"):
            before = state()
            found = CALLS[name]()
            assert state() == before
    finally:
        torch.set_default_dtype(torch.float32)
    if name == "validate":
        assert found.passed
    elif name == "load":
        assert found[0].lm_head.weight.dtype == torch.float32
        assert not found[0].lm_head.weight.is_inference()
    else:
        assert found.equals(CALLS[name]())


def test_work_is_done_in_torchs_usual_state() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad(), state_kept():
            assert (torch.get_default_dtype(), torch.is_grad_enabled()) == (torch.float32, True)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_read_runs_leaves_it_too(gpt2x: Any, launch: Path) -> None:
    assert gpt2x("task=generate", "prompt=x", "decode.max_new_tokens=2").code == 0
    before = state()
    api.read_runs()
    assert state() == before
