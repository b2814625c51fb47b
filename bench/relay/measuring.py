"""What all scenarios share: the stand-in beside the load, calls with their CPU, alternating rounds."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import uvloop

from bench.relay.contenders import Contender
from bench.relay.load import Called, call_many
from bench.relay.processes import LOAD_CORES, Started, cpu_seconds, start

__all__ = [
    "CALLERS",
    "CHAT",
    "COLD",
    "FRAMES",
    "QUANTILES",
    "STREAM",
    "alternate",
    "by_quantile",
    "compare",
    "measured",
    "quantile",
    "upstream",
]

CHAT: Final = "/textModel/chat"
STREAM: Final = "/textModel/stream"

CALLERS = 64
"""Calls at once where nothing else is said."""

FRAMES = (50, 150)
"""Frames of an answer; the difference gives the price of one more."""

QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)

COLD: Mapping[str, str] = {"AIPROJECT_SPARK_WARM_CONNECTIONS": "0"}
"""Settings of an AiProject that keeps no connections open."""

Measurement = tuple[Called, float]


@contextmanager
def upstream(rtt_ms: float = 0.0, *, module: str = "bench.relay.upstream") -> Iterator[Started]:
    """Run a stand-in beside the load, and keep this process, which makes the load, off the servers' core."""
    os.sched_setaffinity(0, LOAD_CORES)
    process = start(module, *(("--rtt", str(rtt_ms)) if rtt_ms else ()), cores=LOAD_CORES)
    try:
        yield process
    finally:
        process.stop()


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` of them lie; 0 without any."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def by_quantile(seconds: Sequence[float]) -> dict[str, float]:
    """Return milliseconds by share, for a curve."""
    ordered = sorted(seconds)
    return {str(share): quantile(ordered, share) * 1000 for share in QUANTILES} if ordered else {}


def measured(contender: Contender, path: str, frames: int, *, calls: int, callers: int) -> Measurement:
    """Make calls; return what came of them, and the CPU microseconds that each cost the contender.

    Raises:
        RuntimeError: a call failed; a figure of failures would be worth nothing.
    """
    target = contender.target(path, "", frames)
    before = cpu_seconds(contender.process.pid)
    called = uvloop.run(call_many(target, callers=callers, calls=calls, is_stream=path == STREAM))
    used = cpu_seconds(contender.process.pid) - before
    if called.wrong:
        raise RuntimeError(f"{contender.name}: {called.wrong} of {calls} calls failed: {called.complaint}")
    return called, used / calls * 1e6


def compare(contenders: Sequence[Contender], *, rounds: int, calls: int) -> dict[str, Any]:
    """Return, by contender and by path, the cost of a call and of one more frame; the first contender is the base."""
    results: dict[str, Any] = {contender.name: {} for contender in contenders}
    base = contenders[0].name
    for path in (CHAT, STREAM):
        few, many = (alternate(contenders, path, frames, rounds=rounds, calls=calls) for frames in FRAMES)
        for contender in contenders:
            name = contender.name
            results[name][path] = {
                **_figures(few[name]),
                "ratio": statistics.median(_ratios(few, name, base)),
                "ratios": [min(_ratios(few, name, base)), max(_ratios(few, name, base))],
                "cpu_us_a_frame": (_cpu(many[name]) - _cpu(few[name])) / (FRAMES[1] - FRAMES[0]),
            }
            if contender.database_pid is not None:
                results[name][path]["database_cpu_us"] = _database_cost(contender, path, calls)
    return results


def alternate(
    contenders: Sequence[Contender], path: str, frames: int, *, rounds: int, calls: int
) -> dict[str, list[Measurement]]:
    """Measure the contenders in turns, so that what else the machine does meets all of them."""
    found: dict[str, list[Measurement]] = {contender.name: [] for contender in contenders}
    for number in range(rounds + 1):
        for contender in contenders:
            share = max(calls // contender.slowness, CALLERS)
            one = measured(contender, path, frames, calls=share if number else max(share // 4, 32), callers=CALLERS)
            if number:  # the first round warms up
                found[contender.name].append(one)
    return found


def _cpu(rounds: Sequence[Measurement]) -> float:
    return statistics.median(cpu for _, cpu in rounds)


def _ratios(found: Mapping[str, Sequence[Measurement]], name: str, base: str) -> list[float]:
    return [cpu / bare for (_, cpu), (_, bare) in zip(found[name], found[base], strict=True)]


def _figures(rounds: Sequence[Measurement]) -> dict[str, float]:
    whole = [seconds for called, _ in rounds for seconds in called.whole]
    return {
        "cpu_us": _cpu(rounds),
        "calls_a_second": statistics.median(called.calls / called.seconds for called, _ in rounds),
        "first_ms_p50": quantile([seconds for called, _ in rounds for seconds in called.first], 0.5) * 1000,
        "whole_ms_p50": quantile(whole, 0.5) * 1000,
        "whole_ms_p99": quantile(whole, 0.99) * 1000,
    }


def _database_cost(contender: Contender, path: str, calls: int) -> float:
    """CPU microseconds of the database's server a call, idle work included."""
    if contender.database_pid is None:
        raise ValueError("it has no database server")
    before = cpu_seconds(contender.database_pid)
    measured(contender, path, FRAMES[0], calls=calls, callers=CALLERS)
    return (cpu_seconds(contender.database_pid) - before) / calls * 1e6
