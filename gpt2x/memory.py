"""How much memory is free, so that work that does not fit is refused before it begins; and errors for lack of it."""

import errno
import math
import os
import sys
from pathlib import Path

from gpt2x.errors import DoesNotFitError


def available_memory() -> int:
    """Bytes that a process on this machine, or in this container, can still allocate without swapping."""
    import psutil

    available = psutil.virtual_memory().available
    for limit, usage, stat, cached in _CGROUP_FILES:  # psutil does not know the limits of control groups
        try:
            allowed, used = int(Path(limit).read_text()), int(Path(usage).read_text())
            facts = dict(line.split() for line in Path(stat).read_text().splitlines())
        except (OSError, ValueError):  # no control group of this version, or no limit: 'max'
            continue
        available = min(available, allowed - used + int(facts.get(cached, 0)))  # the kernel frees cached file pages
    return min(available, _left_by_ulimit(), _left_by_slurm())


def _left_by_slurm() -> int:
    """Bytes that a job of Slurm may still allocate of what it has asked for (`--mem`); Slurm kills it beyond them."""
    allowed = os.environ.get("SLURM_MEM_PER_NODE")
    if not allowed or not int(allowed):  # 0: all memory of the node
        return sys.maxsize
    import psutil

    return int(allowed) * 2**20 - psutil.Process().memory_info().rss


def _left_by_ulimit() -> int:
    """Bytes that this process may still allocate within the limits that the shell's `ulimit` sets."""
    if sys.platform == "win32":
        return sys.maxsize
    import resource

    limits = {"vms": resource.getrlimit(resource.RLIMIT_AS)[0], "data": resource.getrlimit(resource.RLIMIT_DATA)[0]}
    limits = {kind: limit for kind, limit in limits.items() if limit != resource.RLIM_INFINITY}
    if not limits:
        return sys.maxsize
    import psutil

    used = psutil.Process().memory_info()
    return min(limit - getattr(used, kind, 0) for kind, limit in limits.items())


def check_room_for(work: str) -> None:
    """Raises DoesNotFitError if `ulimit` leaves too little for the libraries of this work: they could end the process.

    Errors in the middle of an import, too, can be of any kind, and do not say that memory was short. A library that is
    imported already has its room.
    """
    free = _left_by_ulimit()
    if work not in sys.modules and free < _ROOM[work]:
        raise DoesNotFitError(f"{work} does not fit in the {free / 1e9:.1f} GB that ulimit leaves; raise ulimit -v")


# Bytes of address space that an import takes, with the threads that it starts, and a margin (torch 2.13 for CPUs).
_ROOM = {"torch": 750_000_000, "transformers": 500_000_000, "training": 400_000_000}


def start_threads() -> None:
    """Has torch and numpy start their threads, if there is a limit: they end the process where they cannot later."""
    if _left_by_ulimit() < sys.maxsize:
        import numpy as np
        import torch

        torch.ones(1 << 20).exp_()  # large enough for all threads
        np.ones((256, 256)) @ np.ones((256, 256))


# The files with the limit and with the usage, and the file and key that say how much of the usage is cached files:
# control groups of version 2, then of version 1
# (https://docs.kernel.org/admin-guide/cgroup-v2.html, cgroup-v1/memory.html).
_CGROUP_FILES = (
    (
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory.current",
        "/sys/fs/cgroup/memory.stat",
        "file",
    ),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
        "total_cache",
    ),
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was short. Few libraries have a class for this error; for the others, only the text tells.

    To be called while the traceback still holds what was allocated: where `ulimit` leaves nothing, any error counts,
    as even Python then raises errors that say nothing about memory.
    """
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    try:
        return any(phrase in str(error).lower() for phrase in _OUT_OF_MEMORY) or _left_by_ulimit() < _NOTHING
    except MemoryError:
        return True


_NOTHING = 1 << 26  # bytes: the C library asks the system for memory in pieces of this size
_OUT_OF_MEMORY = (
    "out of memory",  # torch on CUDA and MPS
    "not enough memory",  # torch on a CPU, on Windows
    "can't allocate memory",  # torch on a CPU
    "cannot allocate memory",  # the system: mmap in torch and safetensors, and loading a library
    "std::bad_alloc",
    "could not create a memory object",  # oneDNN
    "could not create a primitive",  # oneDNN
    "can't start new thread",
    "resource temporarily unavailable",  # no thread for the tokenizer
    "failed to map segment from shared object",  # loading a library
)


def check_fits(needed: int, what: str, smaller: str = "model") -> None:
    """Raises DoesNotFitError if fewer than `needed` bytes are free for `what`; it names what to make `smaller`."""
    free = available_memory()
    if needed > free:
        needed_gb, free_gb = math.ceil(needed / 1e8) / 10, math.floor(max(0, free) / 1e8) / 10
        raise DoesNotFitError(
            f"{what} needs {needed_gb} GB of memory, and {free_gb} GB are free; use a smaller {smaller}"
        )
