"""The settings that the Python API reads from conf/ are those that Hydra composes."""

import pytest

from gpt2x.cli.composition import default_settings
from gpt2x.config import options
from gpt2x.config.decode import DecodeConfig
from gpt2x.config.settings import flatten
from gpt2x.config.tasks.validate import ValidateTask
from gpt2x.errors import UserError
from tests.conftest import Cli

GROUPS = {"decode": "sample", "weights": "local", "model": "auto", "device": "auto", "subject": "gpt2x"}


@pytest.fixture(autouse=True)
def _schemas_are_registered(gpt2x: Cli) -> None:
    assert gpt2x("--cfg", "job").code == 0


def test_options_are_what_hydra_composes() -> None:
    composed = default_settings("validate")
    for group, name in GROUPS.items():
        for key, value in flatten({group: options.option(group, name)}).items():
            assert composed[key] == value, key
    for key, value in flatten(options.shared()).items():
        assert composed[key] == value
    task = options.build(ValidateTask, "task.", options.option("task", "validate"))
    assert {f"task.{key}": value for key, value in vars(task).items()} == {
        key: value for key, value in composed.items() if key.startswith("task.")
    }


def test_an_option_builds_on_another() -> None:
    assert options.option("decode", "greedy") == options.option("decode", "sample") | {"greedy": True}
    assert "nano" in options.names("model")


def test_text_is_not_taken_for_an_interpolation() -> None:
    assert options.build(DecodeConfig, "decode.", {"stop": ["${x}", "???"]}).stop == ["${x}", "???"]


def test_values_are_checked_and_converted() -> None:
    import numpy as np

    made = options.build(DecodeConfig, "decode.", {"top_k": np.int64(3), "temperature": 1})
    assert (made.top_k, type(made.top_k), made.temperature) == (3, int, 1.0)
    for settings, message in (
        ({"top_k": 2.5}, r"decode\.top_k: .*2\.5"),
        ({"greedy": "maybe"}, r"decode\.greedy: .*maybe"),
        ({"topk": 2}, r"decode\.topk: no such setting; did you mean 'top_k'"),
        ({"top_p": 2}, r"decode\.top_p=2\.0"),
    ):
        with pytest.raises(UserError, match=message):
            options.build(DecodeConfig, "decode.", settings)
