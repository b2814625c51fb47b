"""Failed attempts are bounded however many are made at once, by both gates."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest

from aiproject.adapters.http.attempts import AttemptLimit
from aiproject.adapters.http.event_limits import Rate
from aiproject.adapters.http.rate_limiter import MemoryRateLimiter, RateLimiter
from aiproject.adapters.http.redis_rate_limiter import RedisRateLimiter
from aiproject.adapters.net.redis import RedisLink
from aiproject.errors import LoginFailed, TooManyRequests, Unavailable
from services import Redis

RATE = Rate("guess", "5/minute")


@pytest.fixture(params=["memory", "redis"])
async def gate(request: pytest.FixtureRequest) -> AsyncIterator[RateLimiter]:
    if request.param == "memory":
        yield MemoryRateLimiter(lambda: 600.0)
        return
    server: Redis = request.getfixturevalue("redis_server")
    async with RedisLink.opened(server.url()) as link, RedisRateLimiter.opened(link) as gate:
        yield gate


@pytest.fixture
def limit(gate: RateLimiter) -> AttemptLimit:
    return AttemptLimit(gate, RATE, (LoginFailed,))


@pytest.fixture
def subject() -> str:
    return secrets.token_hex(4)


WRONG = LoginFailed()


async def fail(limit: AttemptLimit, subject: str, error: BaseException = WRONG) -> bool:
    """Make an attempt that takes a moment and fails; say whether it could be made."""
    try:
        async with limit.attempt(subject):
            await asyncio.sleep(0.01)
            raise error
    except TooManyRequests:
        return False
    except type(error):
        return True


@pytest.mark.serial  # a crowd at Redis, which must answer in time
async def test_failures_at_the_same_moment_find_each_other(limit: AttemptLimit, subject: str) -> None:
    made = await asyncio.gather(*(fail(limit, subject) for _ in range(30)))
    assert sum(made) == 5
    assert not await fail(limit, subject)
    assert await fail(limit, f"{subject} another")


async def test_successes_leave_nothing_and_crowds_wait(limit: AttemptLimit, subject: str) -> None:
    async def succeed() -> None:
        async with limit.attempt(subject):
            await asyncio.sleep(0.01)

    await asyncio.gather(*(succeed() for _ in range(12)))
    assert await fail(limit, subject)


async def test_an_attempt_can_be_given_back_before_its_end(limit: AttemptLimit, subject: str) -> None:
    async def fail_late() -> None:
        async with limit.attempt(subject) as attempt:
            attempt.give_back()
            attempt.give_back()
            raise LoginFailed

    for _ in range(8):
        with pytest.raises(LoginFailed):
            await fail_late()


async def test_errors_that_decide_nothing_give_it_back(limit: AttemptLimit, subject: str) -> None:
    for _ in range(8):
        assert await fail(limit, subject, Unavailable("the database is away"))


async def test_hanging_up_is_no_way_around_it(limit: AttemptLimit, subject: str) -> None:
    for _ in range(5):
        assert await fail(limit, subject, asyncio.CancelledError())
    assert not await fail(limit, subject)


async def test_switched_off(subject: str) -> None:
    limit = AttemptLimit(None, RATE, (LoginFailed,))
    assert all([await fail(limit, subject) for _ in range(8)])


def test_only_minutes_are_counted() -> None:
    with pytest.raises(ValueError, match="minute"):
        AttemptLimit(None, Rate("guess", "5/hour"), (LoginFailed,))
