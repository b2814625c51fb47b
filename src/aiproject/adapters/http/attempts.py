"""Limits on failed attempts: an attempt is counted before it is made, and given back unless it fails.

Counting a failure once it is known lets any number of attempts through that are made at the same moment. Here each of
them finds the count of the others, in this process or, by `aiproject.adapters.http.redis_rate_limiter`, on all nodes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiproject.adapters.http.event_limits import Rate
from aiproject.adapters.http.rate_limiter import Admission, LimitRequest, OverLimit, RateLimiter

__all__ = ["Attempt", "AttemptLimit"]

RETRIES = 10
RETRY_SECONDS = 0.1
"""How often, and how long apart, a refused attempt is tried again. Attempts under way count like failed ones: a class
that redeems at the same moment behind one address waits for its turn instead of being refused."""


class Attempt:
    """An attempt that is counted. Giving it back a second time does nothing."""

    __slots__ = ("_admission", "_policy")

    def __init__(self, admission: Admission | None, policy: str) -> None:
        self._admission = admission
        self._policy = policy

    def give_back(self) -> None:
        """Stop counting it: it is known not to be a failure."""
        if self._admission is not None:
            self._admission.correct(self._policy, 0)
            self._admission = None


class AttemptLimit:
    """Bounds the failed attempts of a subject in a minute.

    Args:
        gate: ``None`` (``AIPROJECT_LIMITS=off``) lets every attempt pass.
        rate: how many may fail in a minute.
        failures: the errors that mean a failure. Other errors say that nothing was learnt, and give the attempt back.
    """

    def __init__(self, rate_limiter: RateLimiter | None, rate: Rate, failures: tuple[type[Exception], ...]) -> None:
        if rate.item.get_expiry() != 60:
            raise ValueError("a gate counts by the minute")
        self._rate_limiter = rate_limiter
        self._rate = rate
        self._failures = failures

    @asynccontextmanager
    async def attempt(self, subject: str) -> AsyncIterator[Attempt]:
        """Count an attempt around the block that makes it.

        Cancellation leaves it counted: else whoever hangs up in time would guess for nothing.

        Raises:
            OverLimit: before the block is entered: too many failed, or are under way.
            Unavailable: before the block is entered: the rate guards money and cannot be counted now.
        """
        attempt = Attempt(await self._admit(subject), self._rate.name)
        try:
            yield attempt
        except self._failures:
            raise
        except Exception:
            attempt.give_back()
            raise
        attempt.give_back()

    async def _admit(self, subject: str) -> Admission | None:
        if self._rate_limiter is None:
            return None
        rate = self._rate
        limit_request = LimitRequest(
            rate.name, subject, rate.item.amount, guards_money=rate.guards_money, is_reported=False
        )
        for _ in range(RETRIES):
            try:
                return await self._rate_limiter.admit((limit_request,))
            except OverLimit:
                await asyncio.sleep(RETRY_SECONDS)
        return await self._rate_limiter.admit((limit_request,))
