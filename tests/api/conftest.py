"""The checkpoints of the tests of parity."""

from tests.parity.conftest import checkpoints, noisy

__all__ = ["checkpoints", "noisy"]
