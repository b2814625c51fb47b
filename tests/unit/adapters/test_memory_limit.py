"""The memory that a process may have, read from files laid out as Linux does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aiproject.adapters.memory import memory_limit

MIB = 1024 * 1024


def lay(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": str(64 * MIB)}, 64 * MIB),
        ({"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/b/memory.max": str(64 * MIB)}, 64 * MIB),
        (
            {
                "proc/self/cgroup": "0::/a/b",
                "sys/fs/cgroup/a/b/memory.max": "max",
                "sys/fs/cgroup/a/memory.max": str(32 * MIB),
            },
            32 * MIB,
        ),
        ({"proc/self/cgroup": "0::/on/the/host", "sys/fs/cgroup/memory.max": str(16 * MIB)}, 16 * MIB),
        (
            {
                "proc/self/cgroup": "12:cpu,memory:/docker/1\n3:pids:/x",
                "sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes": str(48 * MIB),
            },
            48 * MIB,
        ),
    ],
    ids=["version 2", "nested", "of a group above", "a container without its own path", "version 1"],
)
def test_the_smallest_limit_counts(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    lay(tmp_path, files)
    assert memory_limit(tmp_path) == expected


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": "max"},
        {"proc/self/cgroup": "4:memory:/", "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2**63 - 4096)},
    ],
    ids=["no groups", "no limit", "no limit in version 1"],
)
def test_without_one_it_is_the_machines(tmp_path: Path, files: dict[str, str]) -> None:
    lay(tmp_path, files)
    assert memory_limit(tmp_path) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
