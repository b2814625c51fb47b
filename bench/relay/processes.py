"""Processes that are measured: started on a core of their own, their CPU and memory read from the kernel."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

__all__ = [
    "ALL_CORES",
    "LOAD_CORES",
    "SERVER_CORE",
    "Started",
    "cpu_seconds",
    "descriptors",
    "memory_bytes",
    "start",
    "waited_seconds",
    "workers_of",
]

CLONE = Path(__file__).resolve().parents[2]
CORES = sorted(os.sched_getaffinity(0))
ALL_CORES = set(CORES)
SERVER_CORE = {CORES[0]}
LOAD_CORES = set(CORES[1:2] or CORES)


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                yield from _tree(int(child))


def cpu_seconds(pid: int) -> float:
    """Return the CPU that a process and its children have used, user and system, threads included.

    From the scheduler's own sums in nanoseconds (``schedstat``) for the threads that live, which are all that a server
    has while it is measured.
    """
    total = 0
    for process in _tree(pid):
        for stat in Path(f"/proc/{process}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                total += int(stat.read_text().split()[0])
    return total / 1e9


def waited_seconds(pid: int) -> float:
    """Return how long a process' main thread could have run and had to wait, because others had its core."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def memory_bytes(pid: int) -> int:
    """Return the resident memory of a process and its children that is not shared with others (USS)."""
    total = 0
    for process in _tree(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith(("Private_Clean:", "Private_Dirty:")):
                    total += int(line.split()[1]) * 1024
    return total


def descriptors(pid: int) -> int:
    """Return how many files and sockets a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def workers_of(pid: int) -> list[int]:
    """Return the processes that answer calls: the workers that a supervisor spawned, or the one process itself."""
    spawned = [child for child in _tree(pid) if child != pid and b"spawn_main" in _command(child)]
    return spawned or [pid]


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


class Started:
    """A process that printed its port as its first line and ends with its standard input."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self._process = process
        self.pid = process.pid
        self.port = port

    def tasks(self) -> int:
        """Return the number of its unfinished tasks; `bench.relay.gateway` tells it, of one worker."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("it was started without pipes")
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def stop(self) -> None:
        """End it, and wait."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def start(
    module: str,
    *words: str,
    cores: set[int],
    environment: Mapping[str, str] | None = None,
    python: str = sys.executable,
    log: Path | None = None,
) -> Started:
    """Start ``python -m module words`` on ``cores``; it prints its port. ``log`` takes its standard error."""
    with open(log or os.devnull, "ab") as said:
        process = _start([python, "-m", module, *words], said, cores, environment or {})
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.strip().isdigit():
        process.kill()
        raise RuntimeError(f"{module} did not start: {line!r}")
    return Started(process, int(line))


def _start(
    command: list[str], said: IO[bytes], cores: set[int], environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=said,
        cwd=CLONE,
        env={**os.environ, "PYTHONPATH": f"{CLONE}:{CLONE / 'src'}:{CLONE / 'tests'}", **environment},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
