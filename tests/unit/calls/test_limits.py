"""Which limits a call stands under, and that it stops to count when it ends."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from aiproject.accounts.api_keys.model import ApiKey, KeyTerms
from aiproject.accounts.core.model import Account
from aiproject.accounts.principal.principal import Credential, Principal
from aiproject.adapters.http.asgi import Scope
from aiproject.adapters.http.rate_limiter import MemoryRateLimiter
from aiproject.calls.limits import CallLimits, GlobalLimits, RunningCall
from aiproject.errors import TooManyRequests

ACCOUNT = Account(7, "the-uuid", "小明", "", None, 0, 0, None, 0, None, None)
CALLER = Principal(ACCOUNT, Credential.UUID)


def keyed(
    requests_per_minute: int | None = None, concurrent_calls: int | None = None, tokens_per_minute: int | None = None
) -> Principal:
    terms = KeyTerms(
        "a key",
        requests_per_minute=requests_per_minute,
        concurrent_calls=concurrent_calls,
        tokens_per_minute=tokens_per_minute,
    )
    key = ApiKey(3, ACCOUNT.account_id, "sk-0123456789", terms, datetime(2026, 5, 5, tzinfo=UTC))
    return Principal(ACCOUNT, Credential.API_KEY, key=key)


def scope(address: str = "192.0.2.1") -> Scope:
    return {"client": (address, 1)}


class Clock:
    now = 600_000.0

    def __call__(self) -> float:
        return self.now


def limits(requests: int = 100, calls: int = 100, address_calls: int = 100) -> CallLimits:
    return CallLimits(MemoryRateLimiter(Clock()), GlobalLimits(requests, calls, address_calls))


async def passes(call: RunningCall) -> bool:
    try:
        async with call:
            return True
    except TooManyRequests:
        return False


async def test_an_account_has_so_many_calls_a_minute_and_another_its_own() -> None:
    some = limits(requests=3)
    assert [await passes(some.enter(scope(), CALLER)) for _ in range(4)] == [True, True, True, False]
    other = Principal(Account(8, "x", "小红", "", None, 0, 0, None, 0, None, None), Credential.UUID)
    assert await passes(some.enter(scope(), other))


async def test_an_account_has_so_many_calls_at_once() -> None:
    some = limits(calls=2)
    async with some.enter(scope(), CALLER):
        async with some.enter(scope("192.0.2.2"), CALLER):
            with pytest.raises(TooManyRequests) as caught:
                async with some.enter(scope("192.0.2.3"), CALLER):
                    pass
            assert caught.value.retry_after == 1
        assert await passes(some.enter(scope(), CALLER))


async def test_a_call_that_fails_stops_to_count_too() -> None:
    some = limits(calls=1)
    with pytest.raises(ValueError, match="the call's"):
        async with some.enter(scope(), CALLER):
            raise ValueError("the call's")
    assert await passes(some.enter(scope(), CALLER))


async def test_calls_of_an_address_are_counted_over_accounts_and_strangers() -> None:
    some = limits(address_calls=2)
    async with some.enter(scope("2001:db8::1"), CALLER), some.enter(scope("2001:db8::2"), None):
        assert not await passes(some.enter(scope("2001:db8::3"), None))
        assert await passes(some.enter(scope("2001:db8:1::3"), None))


async def test_a_key_has_limits_of_its_own_under_those_of_its_account() -> None:
    some = limits(requests=4)
    caller = keyed(requests_per_minute=3, concurrent_calls=1)
    async with some.enter(scope(), caller):
        assert not await passes(some.enter(scope(), caller))
        assert await passes(some.enter(scope(), CALLER))
    assert await passes(some.enter(scope(), caller))
    assert await passes(some.enter(scope(), caller))
    assert not await passes(some.enter(scope(), caller))  # the account's four are spent


class TestTokensOfAKey:
    async def call(self, some: CallLimits, estimate: int, consumed: int, limit: int = 1000) -> None:
        async with some.enter(scope(), keyed(tokens_per_minute=limit), tokens=lambda: estimate) as running:
            running.consumed = lambda: consumed

    async def test_the_estimate_is_held_and_real_usage_stays(self) -> None:
        some = limits()
        async with some.enter(scope(), keyed(tokens_per_minute=1000), tokens=lambda: 900) as running:
            with pytest.raises(TooManyRequests):
                await self.call(some, 200, 0)
            running.consumed = lambda: 300
        await self.call(some, 700, 700)
        with pytest.raises(TooManyRequests):
            await self.call(some, 1, 1)

    async def test_a_failed_call_takes_nothing(self) -> None:
        some = limits()
        with pytest.raises(ValueError, match="failed"):
            async with some.enter(scope(), keyed(tokens_per_minute=1000), tokens=lambda: 1000):
                raise ValueError("failed")
        await self.call(some, 1000, 0)

    async def test_a_call_over_the_limit_has_a_minute_to_itself(self) -> None:
        some = limits()
        await self.call(some, 50_000, 10)
        await self.call(some, 990, 990)
        with pytest.raises(TooManyRequests):
            await self.call(some, 50_000, 10)

    async def test_usage_over_the_limit_is_counted_and_nobody_else_is_asked_for_an_estimate(self) -> None:
        some = limits()
        await self.call(some, 500, 2000)
        with pytest.raises(TooManyRequests) as caught:
            await self.call(some, 1000, 0)
        assert caught.value.retry_after > 60

        def never() -> int:
            raise AssertionError("asked")

        async with some.enter(scope(), CALLER, tokens=never), some.enter(scope(), keyed(), tokens=never):
            pass


async def test_a_call_that_consumes_no_tokens_needs_none() -> None:
    some = limits()
    caller = keyed(tokens_per_minute=10)
    async with some.enter(scope(), caller, tokens=lambda: 10) as running:
        running.consumed = lambda: 99
    assert not await passes(some.enter(scope(), caller, tokens=lambda: 1))
    assert await passes(some.enter(scope(), caller))


async def test_without_a_gate_everybody_passes() -> None:
    off = CallLimits(None, GlobalLimits(1, 1, 1))
    answer = scope()
    async with off.enter(answer, CALLER), off.enter(answer, CALLER):
        pass
    assert answer == scope()
