"""Copies of configurations that take a fraction of the time of OmegaConf's deepcopy."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from hydra.core import utils
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf


def copied(cfg: DictConfig) -> DictConfig:
    """A copy of a configuration, with everything that OmegaConf knows of it."""
    copy: DictConfig = pickle.loads(pickle.dumps(cfg))
    return copy


@contextmanager
def hydra_copies_less() -> Iterator[None]:
    """While the context lasts, Hydra copies the configuration of a job twice, and in this way, when it runs the job.

    It would copy its own part, which is most of the configuration, three more times. A job's configuration is used for
    nothing else, so HydraConfig need not hold a copy of it.
    """

    def set_config(self: HydraConfig, cfg: DictConfig) -> None:
        OmegaConf.set_readonly(cfg.hydra, True)
        self.cfg = cfg  # type: ignore[assignment]

    original: Any = HydraConfig.set_config, vars(utils)["copy"]
    HydraConfig.set_config, vars(utils)["copy"] = set_config, SimpleNamespace(deepcopy=copied)  # type: ignore
    try:
        yield
    finally:
        HydraConfig.set_config, vars(utils)["copy"] = original  # type: ignore[method-assign]
