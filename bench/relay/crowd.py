"""Many streams at reading speed: by how much are their frames late, and what does an open one take?

Twenty thousand frames a second keep the load busy, too, and what it reads late would be taken for the relay's lateness.
So most streams are only counted; a few are watched by a process of their own, which has next to nothing to do and a
higher priority where we may give it one. Their frames carry the moment of their sending.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import uvloop

from bench.relay.contenders import Contender, aiproject, bare_relay
from bench.relay.load import Called, Target, call_many
from bench.relay.measuring import COLD, STREAM, by_quantile, measured, quantile, upstream
from bench.relay.processes import cpu_seconds, memory_bytes, waited_seconds

__all__ = ["many_streams"]

WATCHED = 50
"""Of the streams."""

PRIORITY = -10
"""Of the process that watches them: it must not wait for the others on its core."""


def many_streams(*, streams: int = 2000, every_ms: int = 100, seconds: int = 20) -> dict[str, Any]:
    """Let many streams run through the bare relay and through us; tell how late frames are, and the memory of each."""
    found: dict[str, Any] = {
        "streams": streams,
        "frames_a_second_each": 1000 / every_ms,
        "seconds": seconds,
        "watched": WATCHED,
    }
    with upstream() as platform:
        with bare_relay(platform.port) as bare:
            found[bare.name] = _crowd(bare, streams, every_ms, seconds)
        with aiproject(platform.port, settings=COLD) as ours:
            found[ours.name] = _crowd(ours, streams, every_ms, seconds)
    return found


def _crowd(contender: Contender, streams: int, every_ms: int, seconds: int) -> dict[str, Any]:
    pid = contender.process.pid
    measured(contender, STREAM, 50, calls=200, callers=20)
    frames = seconds * 1000 // every_ms
    crowd = contender.target(STREAM, f"every={every_ms}", frames)
    watched = contender.target(STREAM, f"every={every_ms} stamps=1", frames)
    memory: dict[int, int] = {}

    async def run(count: int, watch: ProcessPoolExecutor | None) -> tuple[Called, Called]:
        opening = seconds * count / streams / 2
        counted = count - (WATCHED if watch else 0)
        calls = asyncio.create_task(call_many(crowd, callers=counted, calls=counted, is_stream=True, spread=opening))
        watching = None
        if watch is not None:
            work = partial(_watch, watched, opening)
            watching = asyncio.get_running_loop().run_in_executor(watch, work)
        # All are open, and none has ended.
        await asyncio.sleep(opening + seconds / 4)
        memory[count] = memory_bytes(pid)
        return await calls, await watching if watching is not None else Called()

    few = streams // 10
    uvloop.run(run(few, None))  # what the first streams make the process take is not the price of a further one
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_hurry) as watch:
        watch.submit(os.getpid).result()  # it runs
        before, waited = cpu_seconds(pid), waited_seconds(pid)
        called, seen = uvloop.run(run(streams, watch))
        used, waited = cpu_seconds(pid) - before, waited_seconds(pid) - waited
    total = called.frames + seen.frames
    return {
        "dropped_streams": called.wrong + seen.wrong,
        "complaint": called.complaint or seen.complaint,
        "frames": total,
        "delay_ms": by_quantile(seen.delays),
        "delay_ms_worst": max(seen.delays, default=0.0) * 1000,
        "spacing_ms_p50": quantile(seen.spacing, 0.5) * 1000,
        "spacing_ms_p99": quantile(seen.spacing, 0.99) * 1000,
        "share_within_20_ms": sum(delay < 0.02 for delay in seen.delays) / max(1, len(seen.delays)),
        "share_of_a_core": used / called.seconds,
        "share_of_the_time_without_a_core": waited / called.seconds,
        "cpu_us_a_frame": used / max(1, total) * 1e6,
        "kib_a_stream": (memory[streams] - memory[few]) / (streams - few) / 1024,
    }


def _hurry() -> None:
    with contextlib.suppress(PermissionError):
        os.nice(PRIORITY)


def _watch(target: Target, opening: float) -> Called:
    """In the process that watches: run the stamped streams, opened evenly among the others."""
    return uvloop.run(call_many(target, callers=WATCHED, calls=WATCHED, is_stream=True, spread=opening))
