"""Limits on single kinds of events, by the `limits` library: so many for a key in a moving window.

In memory, or in the Redis that nodes share. They are for what happens rarely: a moving window remembers each event.
Every request passes `aiproject.adapters.http.rate_limiter` instead, and failures are counted by
`aiproject.adapters.http.attempts`.
"""

from __future__ import annotations

import time

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter

from aiproject.adapters.net.redis import RedisAway, RedisLink
from aiproject.errors import TooManyRequests

__all__ = ["EventRateLimiter", "Rate"]

PREFIX = "aiproject:events"


class Rate:
    """A named limit such as ``Rate("login", "20/minute")``.

    Args:
        guards_money: it bounds what somebody can spend of the operator's, or win. Such events are refused while the
            shared counters are away; others are counted by each process for itself meanwhile.
    """

    def __init__(self, name: str, rate: str, *, guards_money: bool = False) -> None:
        self.name = name
        self.item: RateLimitItem = parse(rate)
        self.guards_money = guards_money


class EventRateLimiter:
    """Counts events per rate and key.

    Args:
        enabled: ``False`` (``AIPROJECT_LIMITS=off``) lets everything pass.
        link: to the Redis that nodes share; ``None`` counts in this process.
    """

    def __init__(self, *, enabled: bool, link: RedisLink | None = None) -> None:
        self._enabled = enabled
        self._own = MovingWindowRateLimiter(MemoryStorage())
        self._link = link
        self._shared = None
        if link is not None:
            # The address is read and never used: connections come from the link's pool.
            storage = RedisStorage(
                "async+redis://127.0.0.1:6379",
                implementation="redispy",
                key_prefix=PREFIX,
                connection_pool=link.pool,  # type: ignore[arg-type] # typed for what stands in an address
            )
            self._shared = MovingWindowRateLimiter(storage)

    async def hit(self, rate: Rate, key: str) -> None:
        """Count one event.

        Raises:
            TooManyRequests: the limit is reached; the event is not counted.
            Unavailable: Redis is away, and the rate guards money.
        """
        if not self._enabled:
            return
        if self._link is not None and self._shared is not None:
            shared = self._shared
            try:
                wait = await self._link.run(lambda: _wait(shared, rate, key))
            except RedisAway:
                if rate.guards_money:
                    raise
                wait = await _wait(self._own, rate, key)
        else:
            wait = await _wait(self._own, rate, key)
        if wait:
            raise TooManyRequests(wait)


async def _wait(window: MovingWindowRateLimiter, rate: Rate, key: str) -> int:
    """Count the event and return 0 if it may happen, else return the seconds until it may."""
    if await window.hit(rate.item, rate.name, key):
        return 0
    stats = await window.get_window_stats(rate.item, rate.name, key)
    return max(1, int(stats.reset_time - time.time()) + 1)
