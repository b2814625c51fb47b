"""The memory limit of this process: that of its container, or the memory of the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["memory_limit"]

UNLIMITED_BYTES = 2**60
"""A version 1 cgroup without a limit reports a number close to 2**63."""


def memory_limit(root: Path = Path("/")) -> int:
    """Return the bytes of memory that this process may use.

    This is the smallest limit of the process's memory cgroup and of the groups above it, of version 2 or 1, and never
    more than the machine's physical memory.

    Args:
        root: where ``proc`` and ``sys`` are mounted.

    Source: Linux kernel documentation, "Control Group v2" (``memory.max``) and "Memory Resource Controller"
    (``memory.limit_in_bytes``).
    """
    return min(_physical_memory(), *_cgroup_limits(root))


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cgroup_limits(root: Path) -> Iterator[int]:
    yield UNLIMITED_BYTES
    for line in _read(root / "proc/self/cgroup").splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0" and not controllers:
            yield from _limits_upwards(root / "sys/fs/cgroup", path, "memory.max")
        elif "memory" in controllers.split(","):
            yield from _limits_upwards(root / "sys/fs/cgroup/memory", path, "memory.limit_in_bytes")


def _limits_upwards(mount: Path, path: str, name: str) -> Iterator[int]:
    """Yield the limits of a group and of all groups above it.

    Inside a container the path may be that of the host, which is not mounted there. The mount point is then the
    container's group.
    """
    group = mount / path.lstrip("/")
    for folder in (group, *group.parents):
        text = _read(folder / name).strip()
        if text.isdigit():  # a version 2 group without a limit says "max"
            yield int(text)
        if folder == mount:
            return


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:  # another system than Linux, or not mounted here
        return ""
