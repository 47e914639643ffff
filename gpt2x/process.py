"""The state of the whole process: how its products are rounded, and what the Python API leaves as it found it."""

import logging
import os
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


_CBWR, _STRICT = "MKL_CBWR", "AUTO,STRICT"


def fix_rounding() -> None:
    """Has MKL round the same way with any number of threads; to be called before torch multiplies for the first time.

    A product is otherwise summed up in parts, as many as there are threads. Results then do not depend on how many
    cores a launcher gives to a job. Products of several rows cost the same; those of one row cost up to twice as much,
    which makes nano 12 to 17 percent slower for one text at a time. For larger models, for which gpt2x uses other
    products, the differences were no larger than the spread of the measurements. A value that the user has set is
    kept. On CPUs of AMD (EPYC of Zen 4), MKL's products in float64 depend on the number of threads all the same, also
    in the other modes that MKL has.
    Source: https://www.intel.com/content/www/us/en/docs/onemkl/developer-guide-linux/2024-2/ (Conditional Numerical
    Reproducibility).
    """
    os.environ.setdefault(_CBWR, _STRICT)


def free_rounding() -> None:
    """Undoes fix_rounding, for programs that are measured as they are used without gpt2x."""
    if os.environ.get(_CBWR) == _STRICT:
        del os.environ[_CBWR]


@contextmanager
def state_kept() -> Iterator[None]:
    """Runs the block with torch's usual settings (float32, gradients, the CPU), and restores all state afterwards.

    Restored are: the dtype, device, gradient mode and number of threads of torch; the random numbers of torch, numpy
    and Python; environment variables, sys.path, the working directory, the root logger and the filters of warnings.
    """
    with warnings.catch_warnings(), _python_kept(), _torch_kept():
        yield


@contextmanager
def _python_kept() -> Iterator[None]:
    import numpy as np

    folder, path, environment = Path.cwd(), list(sys.path), dict(os.environ)
    drawn, drawn_by_numpy = random.getstate(), np.random.get_state()
    level, handlers, disabled = logging.root.level, list(logging.root.handlers), logging.root.manager.disable
    try:
        yield
    finally:
        os.chdir(folder)
        sys.path[:] = path
        _restore_environment(environment)
        random.setstate(drawn)
        np.random.set_state(drawn_by_numpy)
        logging.root.setLevel(level)
        logging.root.handlers[:] = handlers
        logging.disable(disabled)


def _restore_environment(before: dict[str, str]) -> None:
    for name in set(os.environ) - set(before):
        del os.environ[name]
    for name, value in before.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


@contextmanager
def _torch_kept() -> Iterator[None]:
    import torch

    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    drawn, drawn_on_gpus = torch.get_rng_state(), _gpu_states()
    try:
        with ExitStack() as modes:
            modes.enter_context(torch.inference_mode(False))
            modes.enter_context(torch.enable_grad())
            if torch.get_default_device().type != "cpu":
                modes.enter_context(torch.device("cpu"))
            torch.set_default_dtype(torch.float32)
            yield
    finally:
        torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.set_rng_state(drawn)
        if drawn_on_gpus:
            torch.cuda.set_rng_state_all(drawn_on_gpus)


def _gpu_states() -> "list[torch.Tensor]":
    """The states of the GPUs' random numbers; none if CUDA has not been used yet."""
    import torch

    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
