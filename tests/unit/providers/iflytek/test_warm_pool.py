"""The pool of open connections: sized by demand, bounded, renewed, empty when nobody calls."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from aiproject.adapters.net.websocket import WebSocketConnection
from aiproject.errors import UpstreamUnreachable
from aiproject.providers.iflytek.warm_pool import CHECK_INTERVAL, IDLE_SECONDS, MAX_AGE, RETRY_PAUSE, WarmConnectionPool
from virtual_time import run

HANDSHAKE = 0.1


class Line:
    """A connection that knows only whether it is open, and whether its peer has said anything."""

    def __init__(self) -> None:
        self.is_open = True
        self.has_spoken = False

    def close(self) -> None:
        self.is_open = False


class Platform:
    """Opens lines; remembers them all."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.is_down = False

    async def open(self) -> WebSocketConnection:
        await asyncio.sleep(HANDSHAKE)
        if self.is_down:
            raise UpstreamUnreachable("down")
        self.lines.append(Line())
        return cast("WebSocketConnection", self.lines[-1])

    @property
    def waiting(self) -> int:
        return sum(line.is_open for line in self.lines)


def pool_of(platform: Platform, max_waiting: int = 4, concurrency: int | None = None) -> WarmConnectionPool:
    return WarmConnectionPool(platform.open, max_waiting=max_waiting, concurrency=concurrency)


async def call(pool: WarmConnectionPool, *, seconds: float = 1.0) -> bool:
    """One call; says whether it found a connection."""
    line = pool.take()
    await asyncio.sleep(seconds)
    if line is not None:
        line.close()
    pool.release()
    return line is not None


def test_the_first_call_opens_its_own_and_the_next_finds_one() -> None:
    async def scenario() -> None:
        platform = Platform()
        pool = pool_of(platform)
        assert not await call(pool)
        assert await call(pool)
        assert await call(pool)
        assert (pool.counts.hits, pool.counts.misses) == (2, 1)

    run(scenario())


def test_calls_at_once_make_it_grow_to_its_bound() -> None:
    async def scenario() -> None:
        platform = Platform()
        pool = pool_of(platform, max_waiting=3)
        await asyncio.gather(*(call(pool) for _ in range(8)))
        assert platform.waiting == 3
        found = await asyncio.gather(*(call(pool) for _ in range(8)))
        assert sum(found) == 3
        assert platform.waiting == 3

    run(scenario())


def test_without_a_bound_of_its_own_nothing_is_kept() -> None:
    async def scenario() -> None:
        platform = Platform()
        pool = pool_of(platform, max_waiting=0)
        assert not await call(pool)
        assert not await call(pool)
        assert platform.lines == []

    run(scenario())


def test_never_more_than_the_vendor_allows_with_those_that_answer() -> None:
    async def scenario() -> None:
        platform = Platform()
        pool = pool_of(platform, max_waiting=10, concurrency=4)
        calls = [asyncio.create_task(call(pool, seconds=5)) for _ in range(3)]
        await asyncio.sleep(1)
        assert platform.waiting == 1
        await asyncio.gather(*calls)

    run(scenario())


def test_a_connection_is_used_before_it_is_too_old_or_renewed() -> None:
    async def scenario() -> None:
        platform = Platform()
        pool = pool_of(platform)
        # Calls that leave one connection waiting all the time: it must never be older than the platform allows.
        await asyncio.gather(call(pool), call(pool))
        for _ in range(20):
            await asyncio.sleep(IDLE_SECONDS - 1)
            began = len(platform.lines)
            assert await call(pool, seconds=0)
            await asyncio.sleep(2 * HANDSHAKE)
            assert len(platform.lines) > began  # replaced at once
        assert pool.counts.misses == 2

    run(scenario())


def test_one_that_speaks_before_it_is_asked_is_dropped() -> None:
    async def scenario() -> None:
        platform = Platform()
        pool = pool_of(platform)
        await call(pool)
        platform.lines[0].has_spoken = True
        await call(pool)
        assert not platform.lines[0].is_open
        assert (pool.counts.hits, pool.counts.misses, pool.counts.wasted) == (0, 2, 1)
        platform.lines[1].has_spoken = True
        await asyncio.sleep(CHECK_INTERVAL + HANDSHAKE)
        assert not platform.lines[1].is_open, "it waits on, although nobody may ask it"

    run(scenario())


def test_old_ones_are_not_used_even_if_nobody_has_looked() -> None:
    async def scenario() -> None:
        platform = Platform()
        pool = pool_of(platform)
        await call(pool)
        assert platform.waiting == 1
        pool._last_call += MAX_AGE  # as if it were called all the time
        await asyncio.sleep(MAX_AGE - CHECK_INTERVAL)
        first = platform.lines[0]
        await asyncio.sleep(2 * CHECK_INTERVAL)
        assert not first.is_open

    run(scenario())


def test_nothing_is_kept_when_nobody_calls() -> None:
    async def scenario() -> None:
        platform = Platform()
        pool = pool_of(platform)
        await asyncio.gather(*(call(pool) for _ in range(4)))
        assert platform.waiting == 4
        await asyncio.sleep(IDLE_SECONDS + 2 * CHECK_INTERVAL)
        assert platform.waiting == 0
        opened = len(platform.lines)
        await asyncio.sleep(600)
        assert len(platform.lines) == opened

    run(scenario())


def test_what_a_while_of_calls_does_not_need_is_given_up() -> None:
    async def scenario() -> None:
        platform = Platform()
        pool = pool_of(platform, max_waiting=16)
        await asyncio.gather(*(call(pool) for _ in range(16)))
        assert platform.waiting == 16
        for _ in range(60):
            assert await call(pool, seconds=0.5)
        assert platform.waiting <= 3

    run(scenario())


def test_one_that_the_platform_ended_is_passed_over() -> None:
    async def scenario() -> None:
        platform = Platform()
        pool = pool_of(platform)
        await asyncio.gather(call(pool), call(pool))
        platform.lines[0].is_open = False
        assert await call(pool)
        assert pool.counts.wasted == 1

    run(scenario())


def test_a_platform_that_is_down_is_not_hammered() -> None:
    async def scenario() -> None:
        platform = Platform()
        platform.is_down = True
        pool = pool_of(platform)
        for _ in range(50):
            await call(pool, seconds=RETRY_PAUSE / 100)
        assert pool.counts.failed <= 4
        platform.is_down = False
        await asyncio.sleep(RETRY_PAUSE)
        await call(pool)
        assert await call(pool)

    run(scenario())


def test_a_platform_that_says_too_many_is_relieved_at_once() -> None:
    async def scenario() -> None:
        platform = Platform()
        pool = pool_of(platform)
        await asyncio.gather(*(call(pool) for _ in range(4)))
        pool.limit_reached()
        assert platform.waiting == 0
        await call(pool)
        assert platform.waiting == 0
        await asyncio.sleep(RETRY_PAUSE)
        await call(pool)
        assert platform.waiting > 0

    run(scenario())


def test_what_was_being_opened_when_the_platform_said_too_many_does_not_wait() -> None:
    async def scenario() -> None:
        platform = Platform()
        pool = pool_of(platform)
        pool.take()
        await asyncio.sleep(HANDSHAKE / 2)
        pool.limit_reached()
        await asyncio.sleep(HANDSHAKE)
        assert len(platform.lines) == 1
        assert platform.waiting == 0

    run(scenario())


@pytest.mark.parametrize("pause", [0.0, HANDSHAKE / 2, 1.0])
def test_closed_it_lets_go_of_all(pause: float) -> None:
    async def scenario() -> None:
        platform = Platform()
        pool = pool_of(platform)
        pool.take()
        await asyncio.sleep(pause)
        pool.close()
        pool.close()
        await asyncio.sleep(1)
        assert platform.waiting == 0
        assert pool.take() is None
        await asyncio.sleep(1)
        assert platform.waiting == 0

    run(scenario())
