"""What is measured, one function each; every one returns plain data for JSON, tables and plots."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import uvloop

from bench.relay import direct
from bench.relay.contenders import Contender, aiproject, bare_relay, seed_stack
from bench.relay.load import Called, call_many, close_all, hold_open
from bench.relay.processes import LOAD_CORES, Started, cpu_seconds, memory_bytes, start

__all__ = ["concurrency", "cost", "many_streams", "slow_streams", "time_to_first_frame", "workers"]

CHAT = "/textModel/chat"
STREAM = "/textModel/stream"

CALLERS = 64
"""Calls at once where nothing else is said."""

FRAMES = (50, 150)
"""Frames of an answer; the difference gives the price of one more."""


@contextmanager
def upstream(rtt_ms: float = 0.0) -> Iterator[Started]:
    """Run the Spark stand-in beside the load."""
    process = start("bench.relay.upstream", "--rtt", str(rtt_ms), cores=LOAD_CORES)
    try:
        yield process
    finally:
        process.stop()


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` of them lie; 0 without any."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def measured(contender: Contender, path: str, frames: int, *, calls: int, callers: int) -> tuple[Called, float]:
    """Make calls; return what came of them, and the CPU microseconds that each cost the contender."""
    target = contender.target(path, "", frames)
    before = cpu_seconds(contender.process.pid)
    called = uvloop.run(call_many(target, callers=callers, calls=calls, is_stream=path == STREAM))
    used = cpu_seconds(contender.process.pid) - before
    if called.wrong:
        raise RuntimeError(f"{contender.name}: {called.wrong} of {calls} calls failed: {called.complaint}")
    return called, used / calls * 1e6


def cost(*, rounds: int, calls: int, mysql: str | None, flask_python: str | None) -> dict[str, Any]:
    """Compare the CPU of a whole chat and of a stream, and of one frame more. Rounds alternate, medians are told."""
    os.sched_setaffinity(0, LOAD_CORES)
    with ExitStack() as stack:
        port = stack.enter_context(upstream()).port
        contenders = [stack.enter_context(bare_relay(port)), stack.enter_context(aiproject(port))]
        if mysql is not None:
            contenders.append(stack.enter_context(aiproject(port, name="AiProject on MySQL", database=mysql)))
        if flask_python is not None:
            contenders.append(stack.enter_context(seed_stack(port, flask_python)))
        results: dict[str, dict[str, Any]] = {contender.name: {} for contender in contenders}
        for path in (CHAT, STREAM):
            by_frames = {frames: _alternate(contenders, path, frames, rounds, calls) for frames in FRAMES}
            for contender in contenders:
                few, many = (by_frames[frames][contender.name] for frames in FRAMES)
                a_frame = (many["cpu_us"] - few["cpu_us"]) / (FRAMES[1] - FRAMES[0])
                results[contender.name][path] = {**few, "cpu_us_a_frame": a_frame}
        for contender in contenders:
            results[contender.name]["memory_mib"] = memory_bytes(contender.process.pid) / 2**20
    return results


def _alternate(
    contenders: Sequence[Contender], path: str, frames: int, rounds: int, calls: int
) -> dict[str, dict[str, float]]:
    found: dict[str, list[tuple[Called, float]]] = {contender.name: [] for contender in contenders}
    for contender in contenders:
        measured(contender, path, frames, calls=calls // 4, callers=CALLERS)
    for _ in range(rounds):
        for contender in contenders:
            share = 4 if contender.name.startswith("Flask") else 1
            found[contender.name].append(measured(contender, path, frames, calls=calls // share, callers=CALLERS))
    return {
        name: {
            "cpu_us": statistics.median(cpu for _, cpu in rounds_),
            "calls_a_second": statistics.median(called.calls / called.seconds for called, _ in rounds_),
            "first_ms_p50": quantile([x for called, _ in rounds_ for x in called.first], 0.5) * 1000,
            "whole_ms_p50": quantile([x for called, _ in rounds_ for x in called.whole], 0.5) * 1000,
            "whole_ms_p99": quantile([x for called, _ in rounds_ for x in called.whole], 0.99) * 1000,
        }
        for name, rounds_ in found.items()
    }


def concurrency(levels: Sequence[int] = (10, 100, 1000), *, calls: int = 3000, rounds: int = 3) -> dict[str, Any]:
    """Tell what a chat costs at more and more calls at once."""
    os.sched_setaffinity(0, LOAD_CORES)
    found: dict[str, Any] = {}
    with upstream() as platform, aiproject(platform.port) as contender:
        measured(contender, CHAT, 50, calls=500, callers=64)
        for level in levels:
            costs = [measured(contender, CHAT, 50, calls=max(calls, 3 * level), callers=level) for _ in range(rounds)]
            found[str(level)] = {
                "cpu_us": statistics.median(cpu for _, cpu in costs),
                "calls_a_second": statistics.median(called.calls / called.seconds for called, _ in costs),
            }
    return found


def many_streams(*, streams: int = 2000, every_ms: int = 100, seconds: int = 20) -> dict[str, Any]:
    """Let many streams run at reading speed; tell by how much we delay their frames, and what an open one takes."""
    os.sched_setaffinity(0, LOAD_CORES)
    frames = seconds * 1000 // every_ms
    settings = {"AIPROJECT_SPARK_WARM_CONNECTIONS": "0"}
    with upstream() as platform, aiproject(platform.port, settings=settings) as contender:
        measured(contender, STREAM, 50, calls=200, callers=20)
        idle = memory_bytes(contender.process.pid)
        target = contender.target(STREAM, f"every={every_ms} stamps=1", frames)
        before = cpu_seconds(contender.process.pid)
        peak = 0

        async def run() -> Called:
            nonlocal peak
            calls = asyncio.create_task(
                call_many(target, callers=streams, calls=streams, is_stream=True, spread=seconds / 4)
            )
            await asyncio.sleep(seconds / 2)
            peak = memory_bytes(contender.process.pid)
            return await calls

        called = uvloop.run(run())
        used = cpu_seconds(contender.process.pid) - before
    return {
        "streams": streams,
        "frames_a_second_each": 1000 / every_ms,
        "dropped_streams": called.wrong,
        "frames": called.frames,
        "delay_ms_p50": quantile(called.delays, 0.5) * 1000,
        "delay_ms_p99": quantile(called.delays, 0.99) * 1000,
        "delay_ms_worst": max(called.delays, default=0.0) * 1000,
        "share_of_a_core": used / called.seconds,
        "kib_a_stream": (peak - idle) / streams / 1024,
    }


def slow_streams(*, streams: int = 10_000, every_ms: int = 10_000, seconds: int = 60) -> dict[str, Any]:
    """Hold many slow streams open in one process; tell its memory."""
    os.sched_setaffinity(0, LOAD_CORES)
    settings = {"AIPROJECT_SPARK_WARM_CONNECTIONS": "0", "AIPROJECT_UPSTREAM_CALL_TIMEOUT": "3600"}
    with upstream() as platform, aiproject(platform.port, settings=settings) as contender:
        measured(contender, STREAM, 50, calls=200, callers=20)
        idle = memory_bytes(contender.process.pid)
        target = contender.target(STREAM, f"every={every_ms} stamps=1", 1000)

        async def run() -> tuple[int, int]:
            made = await hold_open(target, streams)
            await asyncio.sleep(seconds)
            alive = sum(caller.chunks > 0 and not caller.is_lost for caller in made)
            memory = memory_bytes(contender.process.pid)
            close_all(made)
            return alive, memory

        alive, memory = uvloop.run(run())
    return {
        "streams": streams,
        "alive": alive,
        "memory_mib": memory / 2**20,
        "kib_a_stream": (memory - idle) / max(alive, 1) / 1024,
    }


def time_to_first_frame(*, rtt_ms: float = 40.0, thinking_ms: int = 100, calls: int = 30) -> dict[str, Any]:
    """Tell when the first frame is there, over a long line: without a gateway, and through us cold and warm."""
    os.sched_setaffinity(0, LOAD_CORES)
    orders = f"delay={thinking_ms} every=20"
    found: dict[str, Any] = {"rtt_ms": rtt_ms, "thinking_ms": thinking_ms}
    with upstream(rtt_ms) as platform:
        first = uvloop.run(direct.first_frames(platform.port, f"frames=10 {orders}", calls))
        found["direct"] = _first(first, rtt_ms, thinking_ms)
        for name, warm in (("cold", "0"), ("warm", "16")):
            with aiproject(platform.port, settings={"AIPROJECT_SPARK_WARM_CONNECTIONS": warm}) as contender:
                target = contender.target(STREAM, orders, 10)
                uvloop.run(call_many(target, callers=1, calls=3, is_stream=True))
                time.sleep(1)
                called = uvloop.run(call_many(target, callers=1, calls=calls, is_stream=True))
                if called.wrong:
                    raise RuntimeError(called.complaint)
                found[name] = _first(called.first, rtt_ms, thinking_ms)
    return found


def _first(seconds: Sequence[float], rtt_ms: float, thinking_ms: float) -> Mapping[str, float]:
    median = statistics.median(seconds) * 1000
    return {
        "first_ms_p50": median,
        "first_ms_p99": quantile(seconds, 0.99) * 1000,
        "round_trips": (median - thinking_ms) / rtt_ms,
        "of_one_round_trip_and_thinking": median / (rtt_ms + thinking_ms),
    }


def workers(*, calls: int = 4000) -> dict[str, Any]:
    """Tell the throughput of one worker and of two, each on all cores, with the CPU that they got."""
    found: dict[str, Any] = {}
    everywhere = os.sched_getaffinity(0) | LOAD_CORES
    with upstream() as platform:
        for count in (1, 2):
            settings = {"AIPROJECT_WORKERS": str(count)}
            with aiproject(platform.port, settings=settings, cores=everywhere) as contender:
                measured(contender, CHAT, 50, calls=500, callers=CALLERS)
                called, cpu = measured(contender, CHAT, 50, calls=calls, callers=CALLERS)
                found[f"{count} workers"] = {
                    "calls_a_second": called.calls / called.seconds,
                    "cpu_us": cpu,
                    "cores_used": cpu * called.calls / called.seconds / 1e6,
                }
    return found
