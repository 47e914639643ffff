"""The Slurm cluster that the tests share."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.slurm import Cluster, running_cluster, what_is_missing


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A Slurm cluster of one node. Where Slurm is not installed, the test is skipped, except in CI."""
    missing = what_is_missing()
    if missing is not None:
        assert not os.environ.get("CI"), missing
        pytest.skip(missing)
    # pytest's own folders have longer names than sockets may have
    with tempfile.TemporaryDirectory(prefix="gpt2x-slurm-") as folder, running_cluster(Path(folder)) as cluster:
        yield cluster
