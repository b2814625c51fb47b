"""What is measured of the relay, one function each; every one returns plain data for JSON, tables and plots."""

from __future__ import annotations

import asyncio
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import uvloop

from bench.relay import direct, shares
from bench.relay.contenders import aiproject, bare_relay, litellm, seed_stack
from bench.relay.databases import mysql
from bench.relay.load import Called, call_many, close_all, hold_open
from bench.relay.measuring import CALLERS, CHAT, COLD, STREAM, compare, measured, quantile, upstream
from bench.relay.processes import ALL_CORES, memory_bytes, workers_of

__all__ = ["concurrency", "cost", "peers", "slow_streams", "time_to_first_frame", "workers"]


def cost(*, rounds: int, calls: int = 1000, flask_python: str | None) -> dict[str, Any]:
    """Compare the CPU of a whole chat and of a stream, and of one frame more. Rounds alternate, medians are told."""
    with ExitStack() as stack:
        port = stack.enter_context(upstream()).port
        contenders = [stack.enter_context(bare_relay(port)), stack.enter_context(aiproject(port))]
        if (server := stack.enter_context(mysql())) is not None:
            on_mysql = aiproject(
                port, name="AiProject on MySQL", database=server.new_database(), database_pid=server.pid
            )
            contenders.append(stack.enter_context(on_mysql))
        if flask_python is not None:
            contenders.append(stack.enter_context(seed_stack(port, flask_python)))
        results = compare(contenders, rounds=rounds, calls=calls)
        for contender in contenders:
            results[contender.name]["memory_mib"] = memory_bytes(contender.process.pid) / 2**20
    return results


def peers(*, rounds: int, calls: int = 1000, litellm_python: str) -> dict[str, Any]:
    """Compare with LiteLLM's proxy: each by its own dialect, in front of its own stand-in, with the same pieces."""
    with ExitStack() as stack:
        spark = stack.enter_context(upstream()).port
        openai = stack.enter_context(upstream(module="bench.relay.openai_upstream")).port
        contenders = [stack.enter_context(aiproject(spark)), stack.enter_context(litellm(openai, litellm_python))]
        results = compare(contenders, rounds=rounds, calls=calls)
        for contender in contenders:
            results[contender.name]["memory_mib"] = memory_bytes(contender.process.pid) / 2**20
    return results


def concurrency(levels: Sequence[int] = (10, 100, 1000), *, rounds: int, calls: int = 1000) -> dict[str, Any]:
    """Tell what a chat costs at more and more calls at once; levels and contenders alternate."""
    found: dict[str, dict[str, Any]] = {}
    with upstream() as platform, bare_relay(platform.port) as bare, aiproject(platform.port) as ours:
        rows: dict[tuple[str, int], list[tuple[Called, float]]] = {}
        for number in range(rounds + 1):
            for level in levels:
                for contender in (bare, ours):
                    one = measured(contender, CHAT, 50, calls=max(calls, 2 * level), callers=level)
                    if number:  # the first round warms up
                        rows.setdefault((contender.name, level), []).append(one)
        for (name, level), measurements in rows.items():
            whole = [seconds for called, _ in measurements for seconds in called.whole]
            found.setdefault(name, {})[str(level)] = {
                "cpu_us": statistics.median(cpu for _, cpu in measurements),
                "calls_a_second": statistics.median(called.calls / called.seconds for called, _ in measurements),
                "whole_ms_p50": quantile(whole, 0.5) * 1000,
                "whole_ms_p99": quantile(whole, 0.99) * 1000,
            }
    return found


def slow_streams(*, streams: int = 10_000, every_ms: int = 10_000, seconds: int = 30) -> dict[str, Any]:
    """Hold many slow streams open in one process; tell its memory.

    Each takes two descriptors of the server. Where the system's hard limit does not allow so many, fewer are held, and
    ``asked`` tells how many were meant.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asked, streams = streams, streams if hard == resource.RLIM_INFINITY else min(streams, (hard - 200) // 2)
    settings = {**COLD, "AIPROJECT_UPSTREAM_CALL_TIMEOUT": "3600"}
    with upstream() as platform, aiproject(platform.port, settings=settings) as contender:
        measured(contender, STREAM, 50, calls=200, callers=20)
        idle = memory_bytes(contender.process.pid)
        target = contender.target(STREAM, f"every={every_ms} stamps=1", 1000)

        async def run() -> tuple[int, int]:
            made = await hold_open(target, streams)
            await asyncio.sleep(seconds)
            alive = sum(caller.chunks > 0 and not caller.is_lost and not caller.ended for caller in made)
            memory = memory_bytes(contender.process.pid)
            close_all(made)
            return alive, memory

        alive, memory = uvloop.run(run())
    return {
        "asked": asked,
        "streams": streams,
        "alive": alive,
        "memory_mib": memory / 2**20,
        "kib_a_stream": (memory - idle) / max(alive, 1) / 1024,
    }


def time_to_first_frame(*, rtt_ms: float = 40.0, thinking_ms: int = 100, calls: int = 30) -> dict[str, Any]:
    """Tell when the first frame is there, over a long line: without a gateway, and through us cold and warm."""
    orders = f"delay={thinking_ms} every=20"
    found: dict[str, Any] = {"rtt_ms": rtt_ms, "thinking_ms": thinking_ms}
    with upstream(rtt_ms) as platform:
        first = uvloop.run(direct.first_frames(platform.port, f"frames=10 {orders}", calls))
        found["direct client"] = _first(first, rtt_ms, thinking_ms)
        for name, settings in (("AiProject, cold", COLD), ("AiProject, warm", {})):
            with aiproject(platform.port, settings=settings) as contender:
                target = contender.target(STREAM, orders, 10)
                uvloop.run(call_many(target, callers=1, calls=3, is_stream=True))
                time.sleep(1)
                called = uvloop.run(call_many(target, callers=1, calls=calls, is_stream=True))
                if called.wrong:
                    raise RuntimeError(called.complaint)
                found[name] = _first(called.first, rtt_ms, thinking_ms)
    return found


def _first(seconds: Sequence[float], rtt_ms: float, thinking_ms: float) -> dict[str, float]:
    median = statistics.median(seconds) * 1000
    return {
        "first_ms_p50": median,
        "first_ms_p99": quantile(seconds, 0.99) * 1000,
        "round_trips": (median - thinking_ms) / rtt_ms,
        "of_the_least": median / (rtt_ms + thinking_ms),
    }


def workers(*, rounds: int, calls: int = 400, share: float = 0.2) -> dict[str, Any]:
    """Compare the throughput of one worker and of two, each held to ``share`` of a core where that is possible.

    Where it is not, the load takes part of the cores; then what counts is the throughput for each core that was used.
    """
    is_limited = shares.is_possible()
    found: dict[str, Any] = {"share_of_a_core": share if is_limited else None}
    with ExitStack() as stack:
        port = stack.enter_context(upstream()).port
        server = stack.enter_context(mysql())
        kinds: dict[str, Callable[[], str]] = {"SQLite": str}
        if server is not None:
            kinds["MySQL"] = server.new_database
        for kind, new_database in kinds.items():
            found[kind] = _one_and_two(
                port, new_database, rounds=rounds, calls=calls, share=share if is_limited else None
            )
    return found


def _one_and_two(
    port: int, new_database: Callable[[], str], *, rounds: int, calls: int, share: float | None
) -> dict[str, dict[str, float]]:
    found: dict[int, list[tuple[Called, float]]] = {1: [], 2: []}
    with ExitStack() as stack:
        contenders = {
            count: stack.enter_context(
                aiproject(port, settings={"AIPROJECT_WORKERS": str(count)}, cores=ALL_CORES, database=new_database())
            )
            for count in found
        }
        for number in range(rounds + 1):
            for count, contender in contenders.items():
                one = measured(contender, CHAT, 50, calls=calls * count, callers=CALLERS * count)
                if number:  # the first round warms up, unlimited
                    found[count].append(one)
                elif share is not None:
                    stack.enter_context(shares.limited(workers_of(contender.process.pid), share))
    return {
        str(count): {
            "calls_a_second": statistics.median(called.calls / called.seconds for called, _ in rows),
            "cpu_us": statistics.median(cpu for _, cpu in rows),
            "cores_used": statistics.median(cpu * called.calls / called.seconds / 1e6 for called, cpu in rows),
        }
        for count, rows in found.items()
    }
