"""Rate limits: counted by rate and key, in a window that moves."""

from __future__ import annotations

import time

import pytest

from aiproject.adapters.http.event_limits import EventRateLimiter, Rate
from aiproject.errors import TooManyRequests

NOW = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    return clock


RATE = Rate("login", "3/minute")


async def refused(limiter: EventRateLimiter, rate: Rate, key: str) -> int:
    with pytest.raises(TooManyRequests) as caught:
        await limiter.hit(rate, key)
    return caught.value.retry_after


async def test_so_many_and_no_more(clock: Clock) -> None:
    limiter = EventRateLimiter(enabled=True)
    for _ in range(3):
        await limiter.hit(RATE, "1.2.3.4")
    assert 1 <= await refused(limiter, RATE, "1.2.3.4") <= 61


async def test_keys_and_rates_are_apart(clock: Clock) -> None:
    limiter = EventRateLimiter(enabled=True)
    for _ in range(3):
        await limiter.hit(RATE, "a")
    await limiter.hit(RATE, "b")
    await limiter.hit(Rate("registration", "3/minute"), "a")
    await refused(limiter, RATE, "a")


async def test_the_window_moves(clock: Clock) -> None:
    limiter = EventRateLimiter(enabled=True)
    await limiter.hit(RATE, "a")
    clock.now += 40
    await limiter.hit(RATE, "a")
    await limiter.hit(RATE, "a")
    wait = await refused(limiter, RATE, "a")
    assert 20 <= wait <= 22
    clock.now += wait
    await limiter.hit(RATE, "a")  # the promise holds: one place is free, and only one
    await refused(limiter, RATE, "a")


async def test_a_refused_event_is_not_counted(clock: Clock) -> None:
    limiter = EventRateLimiter(enabled=True)
    for _ in range(3):
        await limiter.hit(RATE, "a")
    for _ in range(5):
        await refused(limiter, RATE, "a")
    clock.now += 61
    for _ in range(3):
        await limiter.hit(RATE, "a")


async def test_switched_off(clock: Clock) -> None:
    limiter = EventRateLimiter(enabled=False)
    for _ in range(100):
        await limiter.hit(RATE, "a")
