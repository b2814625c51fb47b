"""Rate limits in memory, by the `limits` library: so many events of a kind for a key in a moving window."""

from __future__ import annotations

import time

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from aiproject.errors import TooManyRequests

__all__ = ["Limiter", "Rate"]


class Rate:
    """A named limit such as ``Rate("login", "20/minute")``."""

    def __init__(self, name: str, rate: str) -> None:
        self.name = name
        self.item: RateLimitItem = parse(rate)


class Limiter:
    """Counts events per rate and key.

    Args:
        enabled: ``False`` (``AIPROJECT_LIMITS=off``) lets everything pass.
    """

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._storage = MemoryStorage()
        self._window = MovingWindowRateLimiter(self._storage)

    async def hit(self, rate: Rate, key: str) -> None:
        """Count one event.

        Raises:
            TooManyRequests: the limit is reached; the event is not counted.
        """
        if self._enabled and not await self._window.hit(rate.item, rate.name, key):
            await self._refuse(rate, key)

    async def check(self, rate: Rate, key: str) -> None:
        """Like `hit`, but count nothing: for limits on failures, counted once the failure is known."""
        if self._enabled and not await self._window.test(rate.item, rate.name, key):
            await self._refuse(rate, key)

    async def _refuse(self, rate: Rate, key: str) -> None:
        stats = await self._window.get_window_stats(rate.item, rate.name, key)
        raise TooManyRequests(int(stats.reset_time - time.time()) + 1)
