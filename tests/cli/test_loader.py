"""With Hydra 1.3, a command composes its settings once, and they are what Hydra gives it, which composes them twice."""

from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from hydra._internal import hydra as of_command
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core import utils
from omegaconf import DictConfig

from gpt2x.cli import hydra_app
from gpt2x.errors import UserError
from tests.cli.test_composer import parts
from tests.conftest import Cli

ONCE = [
    [],
    ["--run", "task=generate", "decode=greedy", "seed=${decode.top_k}", "decode.top_k=5"],
    ["task=generate", 'prompt="say ${x} = z"', "hydra.job.env_copy=[PATH]"],
    ["hydra.mode=RUN", "seed=2"],
    ["hydra.mode=null", "dtype=bfloat16"],
    ["experiment=nucleus"],
    ["experiment=nucleus", "hydra.mode=RUN"],
    ["hydra.mode=MULTIRUN", "seed=1,2"],
    ["-m", "seed=1,2", "decode.top_p=0.5"],
    ["-m", "experiment=nucleus", "hydra.mode=RUN"],
    ["sweep=mine", "seed=1"],
]
AS_HYDRA_DOES = [
    ["-m", "experiment=named", "hydra.mode=RUN", "seed=2"],
    ["hydra.job.env_copy=['${hydra.mode}']"],
    ["experiment=open"],
    ["-m", "experiment=open", "decode=greedy"],
    ["-m", "experiment=open"],
    ["experiment=open", "hydra.mode=RUN"],
    ["~hydra.mode"],
    ["hydra.mode=maybe"],
    ["hydra.job.env_copy=[NOWHERE]"],
    ["hydra.verbose=true,false"],
    ["-m", "hydra.verbose=true,false"],
    ["hydra.searchpath=5", "hydra.verbose=true,false"],
    ["experiment=nucleus", "hydra.mode=RUN", "hydra.verbose=true,false"],
    ["seed=x"],
    ["-m", "seed=x"],
    ["seed=${"],
]
Outcome = tuple[list[Any], str]


@pytest.fixture
def composed(gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Starts a command; returns the settings that Hydra would run it with, and stderr.

    The user has a preset that leaves a group without an option, and one from which Hydra computes by its mode.
    """
    presets = {
        "open": "defaults: [{override /decode: '???'}]\nhydra: {mode: MULTIRUN}\n",
        "named": "hydra: {job: {config: {override_dirname: {kv_sep: '=${hydra.mode}'}}}}\n",
    }
    (launch / "conf" / "experiment").mkdir(parents=True)
    for name, text in presets.items():
        (launch / "conf" / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\n{text}")
    found: list[Any] = []

    def stop(cfg: DictConfig) -> NoReturn:
        found.append(parts(cfg))
        raise UserError("composed")

    monkeypatch.setattr(of_command, "Callbacks", stop)
    monkeypatch.setattr(utils, "datetime", SimpleNamespace(now=lambda: datetime(2026, 11, 28)))

    def start(*args: str) -> Outcome:
        found.clear()
        error = gpt2x(*args).err
        return list(found), error

    return start


@pytest.mark.parametrize("args", ONCE + AS_HYDRA_DOES, ids=" ".join)
def test_what_hydra_composes(
    composed: Callable[..., Outcome], args: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    compose = ConfigLoaderImpl._load_configuration_impl

    def counted(*args: Any, **kwargs: Any) -> DictConfig:
        calls.append(args)
        return compose(*args, **kwargs)

    monkeypatch.setattr(ConfigLoaderImpl, "_load_configuration_impl", counted)
    outcome = composed(*args)
    if args in ONCE:
        assert len(calls) == 1
    monkeypatch.setattr(hydra_app, "own_loader", nullcontext)
    assert composed(*args) == outcome


def test_help_lists_the_options_that_hydra_finds(gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a folder of the user."""
    (launch / "conf" / "experiment").mkdir(parents=True)
    (launch / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 3\n")
    printed = gpt2x("--help").out
    assert "mine" in printed
    monkeypatch.setattr(hydra_app, "own_loader", nullcontext)
    assert gpt2x("--help").out == printed
