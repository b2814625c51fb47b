"""Limits on single kinds of events with the `limits` library: a number of events for each key in a moving window.

The events are counted in memory, or in the Redis that nodes share. These limits are for rare events, since a moving
window stores each event. `aiproject.adapters.http.rate_limiter` limits requests, and `aiproject.adapters.http.attempts`
limits failed attempts.
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
        name: identifies the limit in the counters' keys.
        rate: number and period, as the `limits` library parses them.
        guards_money: whether the limit bounds what a caller can spend of the operator's money, or gain. Such events are
            refused while the shared counters are unavailable; meanwhile each process counts other events for itself.
    """

    def __init__(self, name: str, rate: str, *, guards_money: bool = False) -> None:
        self.name = name
        self.item: RateLimitItem = parse(rate)
        self.guards_money = guards_money


class EventRateLimiter:
    """Count events for each rate and key.

    Args:
        enabled: ``False`` (``AIPROJECT_LIMITS=off``) admits every event.
        link: the connection to the Redis that nodes share; ``None``: events are counted in this process.
    """

    def __init__(self, *, enabled: bool, link: RedisLink | None = None) -> None:
        self._enabled = enabled
        self._own = MovingWindowRateLimiter(MemoryStorage())
        self._link = link
        self._shared = None
        if link is not None:
            # The library requires an address but does not use it: connections come from the link's pool.
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
            Unavailable: Redis is unavailable, and the rate guards money.
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
    """Count the event and return 0 if it is admitted; otherwise return the seconds until it can be."""
    if await window.hit(rate.item, rate.name, key):
        return 0
    stats = await window.get_window_stats(rate.item, rate.name, key)
    return max(1, int(stats.reset_time - time.time()) + 1)
