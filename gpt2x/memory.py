"""How much memory is free, so that work that does not fit is refused before it begins; and errors for lack of it."""

import errno
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
    return min(available, _left_by_ulimit())


def _left_by_ulimit() -> int:
    """Bytes that this process may still allocate within the limits that the shell's `ulimit` sets."""
    if sys.platform == "win32":
        return sys.maxsize
    import resource

    import psutil

    used = psutil.Process().memory_info()
    limits = ((resource.RLIMIT_AS, used.vms), (resource.RLIMIT_DATA, getattr(used, "data", 0)))
    soft = ((resource.getrlimit(limit)[0], n_bytes) for limit, n_bytes in limits)
    return min((limit - n_bytes for limit, n_bytes in soft if limit != resource.RLIM_INFINITY), default=sys.maxsize)


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
    """Whether memory was short. Few libraries have a class for this error; for the others, only the text tells."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return any(phrase in str(error).lower() for phrase in _OUT_OF_MEMORY)


_OUT_OF_MEMORY = (
    "out of memory",  # torch on CUDA and MPS
    "not enough memory",  # torch on a CPU, on Windows
    "can't allocate memory",  # torch on a CPU
    "cannot allocate memory",  # the system: mmap in torch and safetensors, and loading a library
    "std::bad_alloc",
    "could not create a memory object",  # oneDNN
    "could not create a primitive",  # oneDNN
    "can't start new thread",
    "failed to map segment from shared object",  # loading a library
)


def check_fits(needed: int, what: str) -> None:
    """Raises DoesNotFitError if fewer than `needed` bytes are free; `what` needs them."""
    free = available_memory()
    if needed > free:
        raise DoesNotFitError(f"{what} needs {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free")
