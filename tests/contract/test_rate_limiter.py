"""One suite over both gates, in memory and in Redis; then what only Redis can do: be shared, be lost, be away."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import pytest
import structlog.testing

from aiproject.adapters.http.event_limits import EventRateLimiter, Rate
from aiproject.adapters.http.rate_limiter import Admission, LimitRequest, MemoryRateLimiter, OverLimit, RateLimiter
from aiproject.adapters.http.redis_rate_limiter import PREFIX, RedisRateLimiter, SharedRateLimiter
from aiproject.adapters.net.redis import COMMAND_SECONDS, PAUSE_SECONDS, RedisAway, RedisLink
from aiproject.errors import Misconfigured, TooManyRequests, Unavailable
from aiproject.messages.formatting import Language, format_error
from aiproject.protocols.rate_limits import LimitStatus, waiting_time, weighted_count
from services import Redis

RATE = LimitRequest("account", "7", 5)
SEATS = LimitRequest("account-calls", "7", 2, is_concurrent=True)
TOKENS = LimitRequest("key-tokens", "3", 100, cost=60, guards_money=True)


class Counted(ABC):
    """A gate whose counts a test can set."""

    gate: RateLimiter

    @abstractmethod
    async def set(self, demand: LimitRequest, previous: int, current: int) -> float:
        """Set what was counted in the minute before and in this one; return the seconds of this one."""


class InMemory(Counted):
    def __init__(self) -> None:
        self._now = 600_000.0
        self.gate = self._gate = MemoryRateLimiter(lambda: self._now)

    async def set(self, demand: LimitRequest, previous: int, current: int) -> float:
        self._now += 180
        await self.gate.admit([demand._replace(limit=10**9, cost=previous)])
        self._now += 60
        await self.gate.admit([demand._replace(limit=10**9, cost=current)])
        return self._now % 60


class InRedis(Counted):
    def __init__(self, gate: RedisRateLimiter, link: RedisLink) -> None:
        self.gate = gate
        self._redis = link.redis

    async def set(self, demand: LimitRequest, previous: int, current: int) -> float:
        while True:
            seconds, microseconds = await self._redis.time()
            if seconds % 60 < 57:  # so that the minute does not end under the test
                break
            await asyncio.sleep(0.5)
        key = f"{PREFIX}rate:{demand.policy}:{demand.subject}"
        await self._redis.delete(key)
        await self._redis.hset(key, mapping={str(seconds // 60): current, str(seconds // 60 - 1): previous})
        return float(seconds % 60 + microseconds / 1e6)


@pytest.fixture
async def link(redis_server: Redis) -> AsyncIterator[RedisLink]:
    async with RedisLink.opened(redis_server.url()) as link:
        yield link


@pytest.fixture(params=["memory", "redis"])
async def counted(request: pytest.FixtureRequest) -> AsyncIterator[Counted]:
    """Either gate."""
    if request.param == "memory":
        yield InMemory()
        return
    server: Redis = request.getfixturevalue("redis_server")
    async with RedisLink.opened(server.url()) as link, RedisRateLimiter.opened(link) as gate:
        yield InRedis(gate, link)


async def refused(gate: RateLimiter, *demands: LimitRequest) -> OverLimit:
    with pytest.raises(OverLimit) as caught:
        await gate.admit(demands)
    return caught.value


async def soon(check: Callable[[], Awaitable[bool]], seconds: float = 5.0) -> None:
    """Wait until it is so: what is given back in Redis is not waited for."""
    deadline = time.monotonic() + seconds
    while not await check():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.02)


async def is_admitted(gate: RateLimiter, *demands: LimitRequest) -> bool:
    try:
        (await gate.admit(demands)).leave()
    except OverLimit:
        return False
    return True


class TestEveryGate:
    async def test_so_many_a_minute(self, counted: Counted) -> None:
        await counted.set(RATE, 0, 0)
        remaining = [(await counted.gate.admit([RATE])).limit_statuses[0].remaining for _ in range(5)]
        assert remaining == [4, 3, 2, 1, 0]
        refusal = await refused(counted.gate, RATE)
        assert refusal.limit_status == LimitStatus("account", 5, 0, refusal.retry_after)
        assert 1 <= refusal.retry_after <= 73
        assert await is_admitted(counted.gate, RATE._replace(subject="8"))
        assert await is_admitted(counted.gate, RATE._replace(policy="address"))

    async def test_so_many_at_once(self, counted: Counted) -> None:
        first, second = [await counted.gate.admit([SEATS]) for _ in range(2)]
        assert [admission.limit_statuses[0].remaining for admission in (first, second)] == [1, 0]
        refusal = await refused(counted.gate, SEATS)
        assert (refusal.retry_after, refusal.limit_status) == (1, LimitStatus("account-calls", 2, 0, None, True))
        assert format_error(refusal, Language.ZH) == "同时进行的请求过多，请稍后再试"
        first.leave()
        first.leave()
        await soon(lambda: is_admitted(counted.gate, SEATS))
        await soon(lambda: is_admitted(counted.gate, SEATS, SEATS._replace(policy="other")))
        assert not await is_admitted(counted.gate, SEATS._replace(limit=1))  # the second's place is still taken
        second.leave()
        await soon(lambda: is_admitted(counted.gate, SEATS._replace(limit=1)))

    async def test_all_or_nothing(self, counted: Counted) -> None:
        await counted.set(RATE, 0, 0)
        held = [await counted.gate.admit([SEATS]) for _ in range(2)]
        for _ in range(9):
            refusal = await refused(counted.gate, RATE, SEATS)
            assert refusal.limit_status.policy == "account-calls"
        assert (await counted.gate.admit([RATE])).limit_statuses[0].remaining == 4
        for admission in held:
            admission.leave()
        for _ in range(4):
            await counted.gate.admit([RATE])
        await refused(counted.gate, RATE, SEATS)
        await soon(lambda: is_admitted(counted.gate, SEATS._replace(limit=1)))

    async def test_the_longest_wait_is_told(self, counted: Counted) -> None:
        await counted.set(RATE, 0, 5)
        held = [await counted.gate.admit([SEATS]) for _ in range(2)]
        assert (await refused(counted.gate, SEATS, RATE)).limit_status.policy == "account"
        for admission in held:
            admission.leave()

    async def test_it_reckons_as_is_written(self, counted: Counted) -> None:
        draw = random.Random(1)
        demand = LimitRequest("key-tokens", "9", 1)
        for _ in range(40):
            limit = draw.randrange(1, 500)
            demand = demand._replace(limit=limit, cost=draw.randrange(1, limit + 1))
            previous, current = draw.randrange(0, 600), draw.randrange(0, 600)
            elapsed = await counted.set(demand, previous, current)
            wait = waiting_time(previous, current, elapsed, limit, demand.cost)
            if wait > 1:
                assert (await refused(counted.gate, demand)).retry_after == pytest.approx(wait, abs=1.2)
            elif wait == 0:
                admission = await counted.gate.admit([demand])
                left = limit - demand.cost - weighted_count(previous, current, elapsed)
                assert admission.limit_statuses[0].remaining == pytest.approx(left, abs=1 + previous / 60)

    async def test_a_cost_is_held_and_corrected(self, counted: Counted) -> None:
        await counted.set(TOKENS, 0, 0)
        admission = await counted.gate.admit([TOKENS])
        assert (await refused(counted.gate, TOKENS)).limit_status.policy == "key-tokens"
        admission.correct("key-tokens", 10)
        admission.correct("another", 99)
        await soon(lambda: is_admitted(counted.gate, TOKENS._replace(cost=90)))
        await refused(counted.gate, TOKENS._replace(cost=1))

    async def test_a_cost_over_the_limit_takes_all_of_it(self, counted: Counted) -> None:
        await counted.set(TOKENS, 0, 0)
        admission = await counted.gate.admit([TOKENS._replace(cost=5000)])
        assert admission.limit_statuses[0].remaining == 0
        await refused(counted.gate, TOKENS._replace(cost=1))
        admission.correct("key-tokens", 0)
        await soon(lambda: is_admitted(counted.gate, TOKENS._replace(cost=100)))

    @pytest.mark.serial  # a command to Redis has half a second, which sixty at once have on a machine that is not busy
    async def test_many_at_the_same_moment(self, counted: Counted) -> None:
        await counted.set(RATE, 0, 0)
        found = await asyncio.gather(*(counted.gate.admit([RATE, SEATS]) for _ in range(60)), return_exceptions=True)
        admitted = [one for one in found if isinstance(one, Admission)]
        assert len(admitted) == 2
        assert sum(isinstance(one, OverLimit) for one in found) == 58
        for admission in admitted:
            admission.leave()


class TestShared:
    async def test_two_processes_count_together(self, redis_server: Redis) -> None:
        async with AsyncExitStack() as stack:
            links = [await stack.enter_async_context(RedisLink.opened(redis_server.url())) for _ in range(2)]
            one, other = [await stack.enter_async_context(RedisRateLimiter.opened(link)) for link in links]
            first = await one.admit([SEATS, RATE])
            second = await other.admit([SEATS, RATE])
            assert [standing.remaining for standing in second.limit_statuses] == [0, 3]
            await refused(one, SEATS)
            await refused(other, SEATS)
            second.leave()
            await soon(lambda: is_admitted(one, SEATS))
            first.leave()

    async def test_the_place_of_a_dead_process_is_free_when_its_lease_runs_out(self, link: RedisLink) -> None:
        dead = RedisRateLimiter(link, lease_seconds=0.4)  # not opened: it renews nothing
        await dead.admit([SEATS._replace(limit=1)])
        assert not await is_admitted(dead, SEATS._replace(limit=1))
        await soon(lambda: is_admitted(dead, SEATS._replace(limit=1)), seconds=2)

    async def test_the_place_of_a_running_call_is_renewed(self, link: RedisLink) -> None:
        async with RedisRateLimiter.opened(link, lease_seconds=0.6) as gate:
            admission = await gate.admit([SEATS._replace(limit=1)])
            await asyncio.sleep(1.3)
            assert not await is_admitted(gate, SEATS._replace(limit=1))
            admission.leave()
            await soon(lambda: is_admitted(gate, SEATS._replace(limit=1)))
            await asyncio.sleep(0.5)  # no renewal brings it back
            assert await is_admitted(gate, SEATS._replace(limit=1))

    async def test_what_redis_forgot_is_counted_again(self, link: RedisLink) -> None:
        async with RedisRateLimiter.opened(link, lease_seconds=0.6) as gate:
            admission = await gate.admit([SEATS._replace(limit=1)])
            await link.redis.flushall()

            async def is_back() -> bool:
                return not await is_admitted(gate, SEATS._replace(limit=1))

            await soon(is_back)
            admission.leave()

    async def test_nothing_stays_for_ever(self, link: RedisLink) -> None:
        async with RedisRateLimiter.opened(link) as gate:
            await gate.admit([RATE, SEATS, TOKENS])
            keys = await link.redis.keys("*")
            assert len(keys) == 3
            assert all([0 < await link.redis.ttl(key) <= 120 for key in keys])

    async def test_old_minutes_are_cleared_away(self, link: RedisLink) -> None:
        async with RedisRateLimiter.opened(link) as gate:
            counted = InRedis(gate, link)
            await counted.set(RATE, 1, 1)
            seconds, _ = await link.redis.time()
            key = f"{PREFIX}rate:account:7"
            await link.redis.hset(key, mapping={str(seconds // 60 - 2): 9, str(seconds // 60 - 3): 9})
            await gate.admit([RATE])
            assert await link.redis.hlen(key) == 2

    async def test_a_password_full_of_signs_and_a_unix_socket(self, redis_server: Redis) -> None:
        async with RedisLink.opened(redis_server.socket_url()) as link:
            assert await link.run(link.redis.ping)
        valkey = redis_server.url().replace("redis://", "valkey://")
        async with RedisLink.opened(valkey) as link:
            assert await link.run(link.redis.ping)


@pytest.fixture
def own_redis() -> Iterator[Redis]:
    """One that a test may stop, kill and start again."""
    server = Redis()
    server.start()
    yield server
    server.remove()


class TestAway:
    """Redis is killed, or hangs."""

    @pytest.fixture
    async def world(self, request: pytest.FixtureRequest, redis_server: Redis) -> AsyncIterator[World]:
        # `redis_server` sees to it that a missing server is skipped, or fails, as it must.
        own: Redis = request.getfixturevalue("own_redis")
        clock = Clock()
        async with RedisLink.opened(own.url()) as link, RedisRateLimiter.opened(link) as shared:
            link._clock = clock
            yield World(own, link, SharedRateLimiter(shared, MemoryRateLimiter()), clock)

    async def test_killed_convenience_is_open_and_money_closed(self, world: World) -> None:
        assert await is_admitted(world.gate, RATE, TOKENS)
        world.server.kill()
        with structlog.testing.capture_logs() as log:
            # Each process counts for itself, from nothing.
            for _ in range(5):
                assert await is_admitted(world.gate, RATE, SEATS)
            assert not await is_admitted(world.gate, RATE)
            with pytest.raises(RedisAway) as caught:
                await world.gate.admit([RATE._replace(subject="8"), TOKENS])
        assert 1 <= caught.value.retry_after <= PAUSE_SECONDS
        assert [entry["event"] for entry in log] == ["redis is away: each process counts for itself"]
        assert "p@ss" not in str(log)

    async def test_killed_events_that_guard_money_are_refused(self, world: World) -> None:
        limiter = EventRateLimiter(enabled=True, link=world.link)
        money, convenience = Rate("anonymous voice", "3/minute", guards_money=True), Rate("mail", "3/minute")
        await limiter.hit(money, "a")
        await limiter.hit(convenience, "a")
        world.server.kill()
        for _ in range(3):
            await limiter.hit(convenience, "a")
            with pytest.raises(Unavailable):
                await limiter.hit(money, "a")
        with pytest.raises(TooManyRequests):
            await limiter.hit(convenience, "a")

    async def test_back_again_it_is_used_again(self, world: World) -> None:
        assert await is_admitted(world.gate, RATE)
        world.server.kill()
        assert await is_admitted(world.gate, RATE)
        world.server.start()
        assert world.link.is_away
        world.clock.now += PAUSE_SECONDS
        with structlog.testing.capture_logs() as log:
            assert await is_admitted(world.gate, TOKENS)
        assert [entry["event"] for entry in log] == ["redis is back"]
        assert not world.link.is_away

    async def test_hanging_it_holds_each_call_up_once_and_briefly(self, world: World) -> None:
        assert await is_admitted(world.gate, RATE)
        world.server.pause()
        try:
            began = time.perf_counter()
            assert all(await asyncio.gather(*(is_admitted(world.gate, RATE) for _ in range(4))))
            assert time.perf_counter() - began < COMMAND_SECONDS + 0.5
            began = time.perf_counter()
            for _ in range(200):
                await is_admitted(world.gate, SEATS)
            assert time.perf_counter() - began < 0.2
            # After the pause one tries, and only that one is held up.
            world.clock.now += PAUSE_SECONDS
            began = time.perf_counter()
            trying = asyncio.create_task(is_admitted(world.gate, SEATS))
            await asyncio.sleep(0.05)
            assert await is_admitted(world.gate, SEATS)
            assert time.perf_counter() - began < COMMAND_SECONDS
            assert not trying.done()
            assert await trying
        finally:
            world.server.resume()

    async def test_a_call_that_ends_meanwhile_leaves_its_place_to_the_lease(self, world: World) -> None:
        admission = await world.gate.admit([SEATS._replace(limit=1), TOKENS])
        world.server.kill()
        admission.leave()
        admission.correct("key-tokens", 1)
        await asyncio.sleep(0.1)
        assert await is_admitted(world.gate, SEATS._replace(limit=1))


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class World:
    def __init__(self, server: Redis, link: RedisLink, gate: RateLimiter, clock: Clock) -> None:
        self.server = server
        self.link = link
        self.gate = gate
        self.clock = clock


async def test_an_unreadable_address_is_told_without_its_password() -> None:
    for url in ("redis://:secret@[::1/0", "http://secret@host", "secret", "redis://:secret@host:port"):
        with pytest.raises(Misconfigured) as caught:
            async with RedisLink.opened(url):
                pass
        assert "secret" not in str(caught.value)
        assert caught.value.__suppress_context__


class TestEvents:
    """The named limits, by the `limits` library, over both."""

    @pytest.fixture(params=["memory", "redis"])
    async def limiter(self, request: pytest.FixtureRequest) -> AsyncIterator[EventRateLimiter]:
        if request.param == "memory":
            yield EventRateLimiter(enabled=True)
            return
        server: Redis = request.getfixturevalue("redis_server")
        async with RedisLink.opened(server.url()) as link:
            yield EventRateLimiter(enabled=True, link=link)

    async def test_so_many_and_no_more(self, limiter: EventRateLimiter) -> None:
        rate, key = Rate("registration", "3/minute", guards_money=True), secrets.token_hex(4)
        for _ in range(3):
            await limiter.hit(rate, key)
        with pytest.raises(TooManyRequests) as caught:
            await limiter.hit(rate, key)
        assert 1 <= caught.value.retry_after <= 61
        await limiter.hit(rate, f"{key} another")
