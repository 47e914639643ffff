"""What the tests of bad input share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Cli

Refused = Callable[..., str]


@pytest.fixture
def refused(gpt2x: Cli, launch: Path) -> Refused:
    """Runs `gpt2x ARGS`, which must fail on the input and leave the launch directory empty; returns the line."""

    def run(*args: str) -> str:
        line = gpt2x(*args).error()
        assert list(launch.iterdir()) == []
        return line

    return run


def assert_in(line: str, *words: str) -> None:
    assert [word for word in words if word not in line] == [], line
