"""A fixed share of a core for a process: cgroup v1's ``cpu.cfs_quota_us``.

On a machine with two cores two servers and their load cannot have a core each. Given a third of a core each, servers
are the limit again, and the load is not.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["is_possible", "limited"]

ROOT = Path("/sys/fs/cgroup/cpu")
PERIOD_US = 10_000
"""Shorter than the kernel's usual 100 ms, in which a process that used its share early would stop for long."""


def is_possible() -> bool:
    """Tell whether this machine lets us."""
    return os.access(ROOT / "cgroup.procs", os.W_OK) and (ROOT / "cpu.cfs_quota_us").exists()


@contextmanager
def limited(pids: Sequence[int], share: float) -> Iterator[None]:
    """Hold each process of ``pids`` to ``share`` of a core until the end; they go on without a limit after it."""
    groups = []
    home = ROOT / _group_of_ours()
    try:
        for pid in pids:
            group = ROOT / f"aiproject-bench-{pid}"
            group.mkdir()
            groups.append(group)
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(round(PERIOD_US * share)))
            (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        for pid, group in zip(pids, groups, strict=False):
            with contextlib.suppress(OSError):  # it has ended
                (home / "cgroup.procs").write_text(str(pid))
            _remove(group)


def _group_of_ours() -> str:
    for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(","):
            return path.lstrip("/")
    return ""


def _remove(group: Path) -> None:
    for _ in range(50):
        try:
            group.rmdir()
        except OSError:
            time.sleep(0.1)  # the kernel takes a moment to let go of the last process
        else:
            return
