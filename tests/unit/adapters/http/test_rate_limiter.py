"""What is peculiar to counting in memory; what every gate does is tested in `tests/contract/test_rate_limiter.py`."""

from __future__ import annotations

import pytest

from aiproject.adapters.http.asgi import HEADERS
from aiproject.adapters.http.rate_limiter import LimitRequest, MemoryRateLimiter, OverLimit, admit

TEN = LimitRequest("account", "7", 10)


class Clock:
    def __init__(self, now: float = 600_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


async def allowed(gate: MemoryRateLimiter, demand: LimitRequest = TEN) -> int:
    for count in range(1000):
        try:
            await gate.admit([demand])
        except OverLimit:
            return count
    raise AssertionError("no limit")


async def test_the_window_moves() -> None:
    clock = Clock()
    gate = MemoryRateLimiter(clock)
    assert await allowed(gate) == 10
    clock.now += 60
    assert await allowed(gate) == 0  # all ten still lie within the last minute
    clock.now += 30
    assert await allowed(gate) == 5
    clock.now += 30
    assert await allowed(gate) == 5
    clock.now += 120
    assert await allowed(gate) == 10


async def test_the_wait_that_is_told_is_the_wait() -> None:
    clock = Clock(600_000 + 20)
    gate = MemoryRateLimiter(clock)
    assert await allowed(gate) == 10
    with pytest.raises(OverLimit) as caught:
        await gate.admit([TEN])
    assert caught.value.retry_after == 46
    clock.now += 45
    assert await allowed(gate) == 0
    clock.now += 1
    assert await allowed(gate) == 1


async def test_who_called_long_ago_is_forgotten() -> None:
    clock = Clock()
    gate = MemoryRateLimiter(clock)
    for number in range(1000):
        await gate.admit([LimitRequest("address", str(number), 10)])
    clock.now += 60
    await gate.admit([TEN])
    clock.now += 60
    await gate.admit([TEN])
    assert len(gate._current) + len(gate._previous) == 2


async def test_a_correction_that_comes_minutes_later_changes_nothing() -> None:
    clock = Clock()
    gate = MemoryRateLimiter(clock)
    admission = await gate.admit([LimitRequest("key-tokens", "1", 100, cost=90)])
    clock.now += 180
    await gate.admit([LimitRequest("key-tokens", "1", 100, cost=50)])
    admission.correct("key-tokens", 0)
    with pytest.raises(OverLimit):
        await gate.admit([LimitRequest("key-tokens", "1", 100, cost=51)])


async def test_a_refusal_tells_only_the_limit_that_refuses() -> None:
    gate = MemoryRateLimiter(Clock())
    scope: dict[str, object] = {}
    demands = [LimitRequest("account", "7", 2), LimitRequest("account-calls", "7", 9, is_concurrent=True)]
    for _ in range(2):
        scope = {}
        await admit(scope, gate, demands)
    assert scope[HEADERS] == {
        b"ratelimit-policy": b'"account";q=2;w=60, "account-calls";q=9;qu="concurrent-requests"',
        b"ratelimit": b'"account";r=0;t=60, "account-calls";r=7',
    }
    scope = {}
    await admit(scope, gate, [LimitRequest("address", "192.0.2.1", 9)])
    with pytest.raises(OverLimit) as caught:
        await admit(scope, gate, demands)
    # The draft, section 6: Retry-After is not earlier than the end of the effective window.
    assert caught.value.retry_after == 90
    assert scope[HEADERS] == {b"ratelimit-policy": b'"account";q=2;w=60', b"ratelimit": b'"account";r=0;t=90'}
