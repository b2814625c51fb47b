"""Starts ``aiproject serve`` over and over, fast: imports everything once and forks.

A start costs nearly two seconds of processor time for imports alone, which a test that kills two hundred servers
cannot afford. Run as a program, it reads orders from standard input, one JSON object a line::

    {"name": "a", "arguments": ["serve", "--port", "8001"], "environment": {…}, "log": "/tmp/a.log",
     "program": "aiproject.cli"}

starts the command in a process of its own (its own session, nothing of ours in its environment) and writes
``{"name": "a", "pid": 123}`` and, at its end, ``{"name": "a", "pid": 123, "status": -9}``. When its input ends, or it
is killed, every process that it started is killed.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import functools
import importlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from program import environment

__all__ = ["Forker", "Served", "shared_forker"]

_PR_SET_PDEATHSIG = 1


class Served:
    """A process that was started.

    Attributes:
        pid: its id.
        status: its exit status, negative for a signal; ``None`` while it runs.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status: int | None = None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def ended(self, seconds: float) -> int | None:
        """Wait for its end; return its exit status, or ``None`` if it still runs after that time."""
        until = time.monotonic() + seconds
        while self.status is None and time.monotonic() < until:  # noqa: ASYNC110 - a thread sets it
            await asyncio.sleep(0.01)
        return self.status


class Forker:
    """The program of this module, from outside. `close` ends it and all that it started."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            start_new_session=True,
        )
        self._starting: dict[str, queue.SimpleQueue[Served | None]] = {}
        self._running: dict[int, Served] = {}
        self._reader = threading.Thread(target=self._read, name="forker", daemon=True)
        self._reader.start()

    def start(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        *,
        program: str = "aiproject.cli",
    ) -> Served:
        """Start ``aiproject`` with ``arguments``; ``environment`` is all that it gets beside the path.

        Args:
            program: the module whose ``main`` is run.
        """
        assert self._process.stdin is not None
        order = {
            "name": name,
            "arguments": list(arguments),
            "environment": dict(environment),
            "log": str(log),
            "program": program,
        }
        told = self._starting[name] = queue.SimpleQueue()
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        served = told.get(timeout=60)
        assert served is not None, "the forker has ended"
        return served

    def close(self) -> None:
        """Kill whatever still runs."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._reader.join(20)
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told: dict[str, Any] = json.loads(line)
            pid = int(told["pid"])
            if "status" in told:
                self._running.pop(pid).status = int(told["status"])
            else:
                served = self._running[pid] = Served(pid)
                self._starting.pop(str(told["name"])).put(served)
        for waiting in self._starting.values():
            waiting.put(None)


@functools.cache
def shared_forker() -> Forker:
    """One for all tests of this process, ended with it."""
    forker = Forker()
    atexit.register(forker.close)
    return forker


# -- inside the program ------------------------------------------------------------------------------------------------


def _main() -> None:
    import aiproject.cli.serve  # noqa: F401 - what this is about: a command imports its modules only when it runs

    children: dict[int, str] = {}
    # A child's end wakes the select below.
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    pending = b""
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(woken, 4096)
        if 0 in ready:
            data = os.read(0, 65536)
            if not data:
                break
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                order = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    _become(order, close=(woken, wake))
                children[pid] = order["name"]
                _tell(name=order["name"], pid=pid)
        _reap(children)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    while children:
        _reap(children, options=0)


def _reap(children: dict[int, str], options: int = os.WNOHANG) -> None:
    while children:
        pid, status = os.waitpid(-1, options)
        if pid == 0:
            return
        _tell(name=children.pop(pid), pid=pid, status=os.waitstatus_to_exitcode(status))


def _tell(**message: object) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(message).encode() + b"\n")


def _become(order: dict[str, Any], *, close: Sequence[int]) -> None:
    """Be the command, in a fresh child; does not return."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        for number in (log, nothing, *close):
            os.close(number)
        for name in [name for name in os.environ if name.startswith("AIPROJECT_")]:
            del os.environ[name]
        os.environ.update(order["environment"])
        sys.argv = ["aiproject", *order["arguments"]]
        importlib.import_module(order["program"]).main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter does at the end of a program
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _main()
