"""How much memory there is, so that what does not fit is told before it is begun."""

from pathlib import Path

from gpt2x.errors import DoesNotFitError


def available_memory() -> int:
    """Bytes that a process on this machine, or in this container, can still have without swapping."""
    import psutil

    available = psutil.virtual_memory().available
    for limit, usage, stat, cached in _CGROUP_FILES:  # which psutil does not know of
        try:
            allowed, used = int(Path(limit).read_text()), int(Path(usage).read_text())
            facts = dict(line.split() for line in Path(stat).read_text().splitlines())
        except (OSError, ValueError):  # no such kind of control group, or 'max'
            continue
        available = min(available, allowed - used + int(facts.get(cached, 0)))  # file pages give way
    return available


# Limit, usage, and where the usage says how much of it is cached files: version 2, then version 1
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
    """DoesNotFitError if there are not `needed` bytes."""
    free = available_memory()
    if needed > free:
        raise DoesNotFitError(f"{what} needs {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free")
