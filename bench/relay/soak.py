"""Half an hour at half load: does memory grow, and is anything left over at the end?"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import statistics
import time
from pathlib import Path
from typing import Any

import uvloop

from bench.relay.contenders import Contender, aiproject
from bench.relay.load import Called, call_many
from bench.relay.measuring import CHAT, STREAM, measured, upstream
from bench.relay.processes import cpu_seconds, descriptors, memory_bytes

__all__ = ["soak"]

SAMPLE_SECONDS = 30.0
WARM_UP_SHARE = 1 / 6
"""Of the time; the slope is told of what comes after it."""

REST_SECONDS = 90.0
"""After the load: kept-alive and warm connections are let go of (75 s and less)."""

CALLERS = 32
SLOW_CALLERS = 16


def soak(*, minutes: float = 30.0) -> dict[str, Any]:
    """Run at half load; tell the slope of memory after the warm-up, and what is left over at the end.

    Half load: chats and streams as fast as they go, then a rest of the same time, over and over; beside them, all the
    time, streams of 50 frames a second.
    """
    with upstream() as platform, aiproject(platform.port) as contender:
        pid = contender.process.pid
        measured(contender, CHAT, 50, calls=200, callers=CALLERS)
        before = _state(contender)
        began, used = time.monotonic(), cpu_seconds(pid)
        samples: list[tuple[float, float, int]] = []
        calls = uvloop.run(_breathe(contender, minutes * 60, samples))
        seconds, used = time.monotonic() - began, cpu_seconds(pid) - used
        time.sleep(REST_SECONDS)
        after = _state(contender)
    warm = [(at / 3600, memory) for at, memory, _ in samples if at >= minutes * 60 * WARM_UP_SHARE]
    slope = statistics.linear_regression(*zip(*warm, strict=True)).slope if len(warm) > 1 else 0.0
    return {
        "minutes": minutes,
        "calls": calls,
        "calls_a_second": calls / seconds,
        "share_of_a_core": used / seconds,
        "slope_mib_an_hour": slope,
        "before": before,
        "after": after,
        "samples": [(round(at), round(memory, 2), files) for at, memory, files in samples],
    }


async def _breathe(contender: Contender, seconds: float, samples: list[tuple[float, float, int]]) -> int:
    began = time.monotonic()
    calls = 0

    def is_over() -> bool:
        return time.monotonic() - began >= seconds

    async def make(path: str, orders: str, callers: int, count: int) -> None:
        nonlocal calls
        target = contender.target(path, orders, 50)
        called: Called = await call_many(target, callers=callers, calls=count, is_stream=path == STREAM)
        if called.wrong:
            raise RuntimeError(called.complaint)
        calls += called.calls

    async def hurry() -> None:
        while not is_over():
            lap = time.monotonic()
            await asyncio.gather(*(make(path, "", CALLERS, CALLERS * 8) for path in (CHAT, STREAM)))
            await asyncio.sleep(time.monotonic() - lap)

    async def flow() -> None:
        while not is_over():
            await make(STREAM, "every=20", SLOW_CALLERS, SLOW_CALLERS * 8)

    async def watch() -> None:
        while not is_over():
            pid = contender.process.pid
            samples.append((time.monotonic() - began, memory_bytes(pid) / 2**20, descriptors(pid)))
            await asyncio.sleep(min(SAMPLE_SECONDS, seconds / 20))

    await asyncio.gather(hurry(), flow(), watch())
    return calls


def _state(contender: Contender) -> dict[str, float]:
    pid = contender.process.pid
    return {
        "memory_mib": memory_bytes(pid) / 2**20,
        "descriptors": descriptors(pid),
        "threads": len(os.listdir(f"/proc/{pid}/task")),
        "tasks": contender.process.tasks(),
        "open_holds": _open_holds(contender.folder),
    }


def _open_holds(folder: Path | None) -> int:
    if folder is None:
        raise ValueError("holds are counted where the database is a file")
    connection = sqlite3.connect(f"file:{folder / 'aiproject.db'}?mode=ro", uri=True)
    try:
        (count,) = connection.execute("SELECT count(*) FROM hold WHERE state = 'open'").fetchone()
    finally:
        connection.close()
    return int(count)
