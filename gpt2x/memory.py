"""How much memory is free, so that work that does not fit is refused before it begins."""

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
    return available


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


def check_fits(needed: int, what: str) -> None:
    """Raises DoesNotFitError if fewer than `needed` bytes are free; `what` needs them."""
    free = available_memory()
    if needed > free:
        raise DoesNotFitError(f"{what} needs {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free")
