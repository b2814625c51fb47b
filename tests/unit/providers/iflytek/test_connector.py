"""The way to the platform: tries, pauses, the deadline and the platform's clock; in made-up time, without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from aiproject.config.iflytek import IflytekCredentials
from aiproject.errors import (
    UpstreamFailed,
    UpstreamProtocolViolation,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamTruncated,
    UpstreamUnreachable,
)
from aiproject.protocols.iflytek.signing import http_date
from aiproject.providers.iflytek.connector import IflytekConnector, TimeLimits
from virtual_time import run

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
LIMITS = TimeLimits(connect=1, first_frame=2, gap=3, call=60, attempts=4)


def link(limits: TimeLimits = LIMITS, *, clock: Callable[[], datetime] = lambda: NOW) -> IflytekConnector:
    return IflytekConnector(IflytekCredentials("appid", "the-key", "the-secret"), limits, clock=clock)


class Call:
    """Fails as often as it has failures, then succeeds; notes when it was made."""

    def __init__(self, *failures: BaseException, seconds: float = 0.0) -> None:
        self.failures = list(failures)
        self.seconds = seconds
        self.times: list[float] = []

    async def __call__(self) -> str:
        self.times.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.seconds)
        if self.failures:
            raise self.failures.pop(0)
        return "answer"

    @property
    def pauses(self) -> list[float]:
        return [b - a - self.seconds for a, b in zip(self.times, self.times[1:], strict=False)]


def passing(delay: float = 0.0) -> UpstreamFailed:
    return UpstreamRefused("busy", code=11202, retryable=True, retry_delay=delay)


class TestAttempts:
    def test_success_at_once(self) -> None:
        call = Call()
        assert run(link().attempt(call, service="spark")) == "answer"
        assert len(call.times) == 1

    def test_again_until_it_works(self) -> None:
        call = Call(passing(), UpstreamUnreachable(retryable=True), UpstreamTruncated(retryable=True))
        assert run(link().attempt(call, service="spark")) == "answer"
        assert len(call.times) == 4

    @pytest.mark.parametrize(
        "failure",
        [
            UpstreamRefused(code=10013),
            UpstreamUnreachable(status=401),
            UpstreamProtocolViolation(),
            UpstreamTimeout("gap", 3),
        ],
    )
    def test_not_where_it_makes_no_sense(self, failure: UpstreamFailed) -> None:
        call = Call(failure)
        with pytest.raises(type(failure)) as caught:
            run(link().attempt(call, service="spark"))
        assert caught.value is failure
        assert len(call.times) == 1

    @pytest.mark.parametrize("attempts", [1, 2, 4])
    def test_so_often_and_no_more(self, attempts: int) -> None:
        failures = [passing() for _ in range(10)]
        call = Call(*failures)
        limits = TimeLimits(connect=1, first_frame=2, gap=3, call=60, attempts=attempts)
        with pytest.raises(UpstreamRefused) as caught:
            run(link(limits).attempt(call, service="spark"))
        assert caught.value is failures[attempts - 1]
        assert len(call.times) == attempts

    def test_what_is_no_failure_of_upstream_passes_through(self) -> None:
        call = Call(ZeroDivisionError())
        with pytest.raises(ZeroDivisionError):
            run(link().attempt(call, service="spark"))
        assert len(call.times) == 1

    def test_pauses_grow_and_are_jittered(self) -> None:
        seen = set()
        for _ in range(5):
            call = Call(*(passing() for _ in range(3)))
            run(link().attempt(call, service="spark"))
            for pause, nominal in zip(call.pauses, (0.2, 0.4, 0.8), strict=True):
                assert 0.8 * nominal <= pause <= 1.3 * nominal + 0.001
            seen.update(call.pauses)
        assert len(seen) > 10

    def test_a_pause_that_upstream_asks_for_is_kept(self) -> None:
        call = Call(passing(5.0))
        run(link().attempt(call, service="spark"))
        assert 4 <= call.pauses[0] <= 6.5


class TestDeadline:
    def test_one_call_that_takes_too_long(self) -> None:
        call = Call(seconds=3600)

        async def scenario() -> float:
            began = asyncio.get_running_loop().time()
            with pytest.raises(UpstreamTimeout) as caught:
                await link().attempt(call, service="spark")
            assert (caught.value.phase, caught.value.seconds, caught.value.retryable) == ("call", 60, False)
            return asyncio.get_running_loop().time() - began

        assert run(scenario()) == pytest.approx(60)

    def test_tries_share_it(self) -> None:
        call = Call(*(passing() for _ in range(10)), seconds=25)

        async def scenario() -> float:
            began = asyncio.get_running_loop().time()
            with pytest.raises(UpstreamTimeout):
                await link().attempt(call, service="spark")
            return asyncio.get_running_loop().time() - began

        assert run(scenario()) == pytest.approx(60)
        assert len(call.times) == 3

    def test_no_pause_that_would_outlast_it(self) -> None:
        failure = passing(120.0)
        call = Call(failure)

        async def scenario() -> float:
            began = asyncio.get_running_loop().time()
            with pytest.raises(UpstreamRefused) as caught:
                await link().attempt(call, service="spark")
            assert caught.value is failure
            return asyncio.get_running_loop().time() - began

        assert run(scenario()) == 0

    def test_cancelling_ends_it(self) -> None:
        async def scenario() -> None:
            call = Call(passing(10.0))
            attempting = asyncio.create_task(link().attempt(call, service="spark"))
            await asyncio.sleep(1)
            attempting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await attempting
            assert len(call.times) == 1

        run(scenario())


def refused(
    seconds: float, *, status: int = 403, detail: str = "a valid date or x-date header is required"
) -> UpstreamUnreachable:
    return UpstreamUnreachable(detail, status=status, server_date=http_date(NOW + timedelta(seconds=seconds)))


def date_of(url: str) -> str:
    return parse_qs(urlsplit(url).query)["date"][0]


class TestClock:
    @pytest.mark.parametrize("skew", [-86_400, -310, 310, 7 * 86_400])
    def test_it_is_learned_from_a_refusal(self, skew: int) -> None:
        way = link()
        assert date_of(way.signed("wss://host/v2/iat", "GET")) == http_date(NOW)
        refusal = refused(skew)
        way.correct_clock(refusal)
        assert refusal.retryable
        assert way.clock_offset_seconds == pytest.approx(skew, abs=1)
        assert date_of(way.signed("wss://host/v2/iat", "GET")) == http_date(NOW + timedelta(seconds=skew))

    @pytest.mark.parametrize(
        "refusal",
        [
            refused(600, status=401),
            refused(600, detail="Your IP address is not allowed"),
            UpstreamUnreachable("a valid date is required", status=403, server_date=None),
            UpstreamUnreachable("a valid date is required", status=403, server_date="yesterday"),
            UpstreamUnreachable("a valid date is required", status=403, server_date="Tue, 99 Nov 2020 09:00:00 GMT"),
            refused(5),
        ],
        ids=["401", "not about the date", "no date", "no date at all", "impossible date", "our clock is right"],
    )
    def test_nothing_to_learn(self, refusal: UpstreamUnreachable) -> None:
        way = link()
        way.correct_clock(refusal)
        assert way.clock_offset_seconds == 0
        assert not refusal.retryable

    def test_all_calls_that_were_refused_together_try_again(self) -> None:
        """The second was signed before the first one learned of it."""
        way = link()
        first, second = refused(600), refused(601)
        way.correct_clock(first)
        way.correct_clock(second)
        assert first.retryable
        assert second.retryable
        assert way.clock_offset_seconds == pytest.approx(600, abs=1)

    def test_it_is_learned_anew_when_our_clock_is_set_right(self) -> None:
        times = [NOW]
        way = link(clock=lambda: times[0])
        way.correct_clock(refused(600))
        times[0] += timedelta(seconds=600)
        refusal = refused(600)
        way.correct_clock(refusal)
        assert refusal.retryable
        assert way.clock_offset_seconds == pytest.approx(0, abs=1)

    def test_neither_signature_nor_secret_shows(self) -> None:
        way = link()
        assert "the-secret" not in way.signed("wss://host/v2/iat", "GET")
        assert "the-secret" not in repr(way.credentials)
        assert "the-key" not in repr(way.credentials)
