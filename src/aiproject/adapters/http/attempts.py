"""Limits on failed attempts: an attempt is counted before it is made, and its count is returned unless it fails.

If failures were counted only once they are known, any number of simultaneous attempts would pass. Here each attempt
sees the count of the others, in this process or, with `aiproject.adapters.http.redis_rate_limiter`, on all nodes.
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
"""How often, and at what interval, a refused attempt is repeated.

Attempts in progress count like failed ones. When a class behind one address redeems at the same moment, its members
wait for each other instead of being refused.
"""


class Attempt:
    """A counted attempt. Calling `give_back` a second time does nothing."""

    __slots__ = ("_admission", "_policy")

    def __init__(self, admission: Admission | None, policy: str) -> None:
        self._admission = admission
        self._policy = policy

    def give_back(self) -> None:
        """Stop counting the attempt: it is known not to be a failure."""
        if self._admission is not None:
            self._admission.correct(self._policy, 0)
            self._admission = None


class AttemptLimit:
    """Limit the failed attempts of a subject in a minute.

    Args:
        rate_limiter: ``None`` (``AIPROJECT_LIMITS=off``) admits every attempt.
        rate: how many attempts may fail in a minute.
        failures: the errors that count as failures. After any other error the caller has learnt nothing from the
            attempt, so it is not counted.
    """

    def __init__(self, rate_limiter: RateLimiter | None, rate: Rate, failures: tuple[type[Exception], ...]) -> None:
        if rate.item.get_expiry() != 60:
            raise ValueError("attempts are counted by the minute")
        self._rate_limiter = rate_limiter
        self._rate = rate
        self._failures = failures

    @asynccontextmanager
    async def attempt(self, subject: str) -> AsyncIterator[Attempt]:
        """Count an attempt for the duration of the block that makes it.

        A cancelled attempt stays counted: otherwise a client could guess without limit by disconnecting in time.

        Raises:
            OverLimit: before the block is entered: too many attempts have failed or are in progress.
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
