"""A rate limiter with its counters in Redis or Valkey, so that nodes and workers count together.

One script decides on a request under all of its limits in one round trip. It uses the clock of Redis, so the clocks of
the nodes do not matter. Slots of running calls are leases: each process renews the leases of its own calls, and the
slots of a process that died become free when their leases expire.

Keys under `PREFIX`: ``rate:<policy>:<subject>`` is a hash of counts by minute; ``seats:<policy>:<subject>`` is a sorted
set of leases by their expiry time (ms). All keys expire by themselves.

The keys of one request belong to different hash slots, so Redis Cluster is not supported.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiproject.adapters.http.rate_limiter import SEAT_RETRY_SECONDS, Admission, LimitRequest, OverLimit, RateLimiter
from aiproject.adapters.net.redis import RedisAway, RedisLink
from aiproject.protocols.rate_limits import WINDOW_SECONDS, LimitStatus, whole_seconds

__all__ = ["RedisRateLimiter", "SharedRateLimiter"]

PREFIX = "aiproject:limits:"

LEASE_SECONDS = 30.0
"""Seconds for which a slot of a killed process stays taken."""

RENEWED_AT_ONCE = 200
"""Leases that one script renews. Redis runs one script at a time, so a long one delays every other client."""

# The arithmetic is that of `aiproject.protocols.rate_limits`; the same test suite runs over both implementations.
#
# KEYS: one for each limit. ARGV: window, lease, lease_ms and seat_retry, then kind, limit and cost of each limit; times
# in milliseconds. Returns the number of the limit that refuses (0: admitted) and its waiting time, the minute in which
# the request was counted, and what remains under each limit. As in `MemoryRateLimiter`, all limits are checked before
# any is counted.
ADMIT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local window, lease, lease_ms, seat_retry = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local index, elapsed = math.floor(now / window), now % window
local refused, longest = 0, 0
local left = {}
for i, key in ipairs(KEYS) do
  local at = 5 + (i - 1) * 3
  local kind, limit, cost = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local wait = 0
  if kind == 'seats' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    left[i] = limit - redis.call('ZCARD', key) - 1
    if left[i] < 0 then wait = seat_retry end
  else
    local counts = redis.call('HMGET', key, index, index - 1)
    local current, previous = tonumber(counts[1] or 0), tonumber(counts[2] or 0)
    left[i] = limit - cost - current - previous * (window - elapsed) / window
    if left[i] < 0 then
      local room = limit - cost - current
      if room >= 0 then
        wait = window * (1 - room / previous) - elapsed
      else
        wait = window - elapsed + window * (1 - (limit - cost) / current)
      end
      wait = math.max(1, math.ceil(wait))
    end
  end
  if wait > longest then refused, longest = i, wait end
end
if refused == 0 then
  for i, key in ipairs(KEYS) do
    local at = 5 + (i - 1) * 3
    if ARGV[at] == 'seats' then
      redis.call('ZADD', key, now + lease_ms, lease)
      redis.call('PEXPIRE', key, lease_ms * 2)
    else
      redis.call('HINCRBY', key, index, ARGV[at + 2])
      -- The key dies after two idle minutes, so nothing older than these two can be in it.
      redis.call('HDEL', key, index - 2, index - 3)
      redis.call('PEXPIRE', key, window * 2)
    end
  end
end
local answer = {refused, longest, index}
for i = 1, #KEYS do answer[i + 3] = math.max(0, math.floor(left[i])) end
return answer
"""

# A count that has expired is not created again: the request it belonged to no longer counts.
CORRECT = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 and redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2]) < 0 then
  redis.call('HSET', KEYS[1], ARGV[1], 0)
end
"""

# Adds leases that are missing as well (no XX option): after a restart of Redis the running calls are counted again.
RENEW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i, key in ipairs(KEYS) do
  redis.call('ZADD', key, now + ARGV[1], ARGV[i + 1])
  redis.call('PEXPIRE', key, ARGV[1] * 2)
end
"""

LEAVE = "for i, key in ipairs(KEYS) do redis.call('ZREM', key, ARGV[1]) end"


class RedisRateLimiter(RateLimiter):
    """Count requests in Redis. Use `opened` to create one; it renews the leases of running calls until its end.

    Args:
        link: the connection to Redis.
        lease_seconds: see `LEASE_SECONDS`; leases are renewed three times in this period.
    """

    def __init__(self, link: RedisLink, lease_seconds: float = LEASE_SECONDS) -> None:
        self._link = link
        self._lease_seconds = lease_seconds
        self._lease_ms = round(lease_seconds * 1000)
        self._admit = link.redis.register_script(ADMIT)
        self._correct = link.redis.register_script(CORRECT)
        self._renew = link.redis.register_script(RENEW)
        self._leave = link.redis.register_script(LEAVE)
        self._leases: dict[str, list[str]] = {}
        # Commands run on several connections. A renewal that Redis receives after the release of the same lease would
        # take the slot again, so renewals and releases are sent one at a time.
        self._order = asyncio.Lock()
        # The event loop keeps only weak references to tasks; this set keeps them alive until they are done.
        self._afterwards: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def opened(cls, link: RedisLink, lease_seconds: float = LEASE_SECONDS) -> AsyncIterator[RedisRateLimiter]:
        """Create a rate limiter; at the end, wait for the commands that are on their way to Redis."""
        rate_limiter = cls(link, lease_seconds)
        renewing = asyncio.create_task(rate_limiter._keep_renewing(), name="renew places")
        try:
            yield rate_limiter
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, *rate_limiter._afterwards, return_exceptions=True)

    async def admit(self, limit_requests: Sequence[LimitRequest]) -> Admission:
        """Count a request under all of its limits, or under none.

        Raises:
            OverLimit: one of them is reached.
            RedisAway: Redis did not answer; the request is not known to be counted.
        """
        lease = secrets.token_hex(8)
        keys = [_key(limit_request) for limit_request in limit_requests]
        seats = [key for key, limit_request in zip(keys, limit_requests, strict=True) if limit_request.is_concurrent]
        arguments: list[str | int] = [WINDOW_SECONDS * 1000, lease, self._lease_ms, SEAT_RETRY_SECONDS * 1000]
        for limit_request in limit_requests:
            arguments += (
                "seats" if limit_request.is_concurrent else "rate",
                limit_request.limit,
                min(limit_request.cost, limit_request.limit),
            )
        admission = _RedisAdmission(self, lease, limit_requests, keys)
        try:
            answer = await self._link.run(lambda: self._admit(keys, arguments))
        except BaseException as error:
            was_asked = not isinstance(error, RedisAway) or error.was_asked
            # The script may have run although no answer came (also after a cancellation). Release its slots, which
            # would stay taken for the rest of the lease otherwise. Counts per minute are left: they expire soon.
            if seats and was_asked:
                self._soon(self._give_back(lease, seats))
            raise
        refused, wait_ms, admission.minute, *remaining = answer
        admission.limit_statuses = [
            LimitStatus(
                limit_request.policy,
                limit_request.limit,
                left,
                None if limit_request.is_concurrent else WINDOW_SECONDS,
                limit_request.is_concurrent,
                limit_request.is_reported,
            )
            for limit_request, left in zip(limit_requests, remaining, strict=True)
        ]
        if refused:
            retry_after = whole_seconds(wait_ms / 1000)
            limit_status = admission.limit_statuses[refused - 1]
            raise OverLimit(
                limit_status._replace(remaining=0, seconds=None if limit_status.is_concurrent else retry_after),
                retry_after,
            )
        # Only leases in this dictionary are renewed. Requests without concurrent limits hold none.
        if seats:
            self._leases[lease] = seats
        return admission

    def correct(self, key: str, minute: int, difference: int) -> None:
        """Change a count of a minute by ``difference``, without waiting for Redis."""

        async def correct() -> None:
            await self._link.run(lambda: self._correct([key], [minute, difference]))

        self._soon(correct())

    def leave(self, lease: str) -> None:
        """Release the slots of a request without waiting for Redis; if that fails, the lease expires."""
        if seats := self._leases.pop(lease, None):
            self._soon(self._give_back(lease, seats))

    async def _give_back(self, lease: str, seats: Sequence[str]) -> None:
        async with self._order:
            await self._link.run(lambda: self._leave(seats, [lease]))

    def _soon(self, command: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            with suppress(RedisAway):  # the link logs it
                await command

        task = asyncio.create_task(run())
        self._afterwards.add(task)
        task.add_done_callback(self._afterwards.discard)

    async def _keep_renewing(self) -> None:
        while True:
            # A third of the lease: two renewals may fail before a slot is lost.
            await asyncio.sleep(self._lease_seconds / 3)
            leases = [(key, lease) for lease, seats in list(self._leases.items()) for key in seats]
            for start in range(0, len(leases), RENEWED_AT_ONCE):
                with suppress(RedisAway):
                    await self._renew_some(leases[start : start + RENEWED_AT_ONCE])

    async def _renew_some(self, leases: Sequence[tuple[str, str]]) -> None:
        async with self._order:
            # Some calls may have ended while this batch waited for the lock.
            still = [(key, lease) for key, lease in leases if lease in self._leases]
            if still:
                keys, names = zip(*still, strict=True)
                await self._link.run(lambda: self._renew(list(keys), [self._lease_ms, *names]))


class _RedisAdmission(Admission):
    __slots__ = ("_keys", "_lease", "_limit_requests", "_rate_limiter", "limit_statuses", "minute")

    def __init__(
        self, rate_limiter: RedisRateLimiter, lease: str, limit_requests: Sequence[LimitRequest], keys: Sequence[str]
    ) -> None:
        self._rate_limiter = rate_limiter
        self._lease = lease
        self._limit_requests = limit_requests
        self._keys = keys
        self.minute = 0
        self.limit_statuses = ()

    def correct(self, policy: str, cost: int) -> None:
        for limit_request, key in zip(self._limit_requests, self._keys, strict=True):
            difference = cost - min(limit_request.cost, limit_request.limit)
            if limit_request.policy == policy and difference:
                self._rate_limiter.correct(key, self.minute, difference)

    def leave(self) -> None:
        self._rate_limiter.leave(self._lease)


class SharedRateLimiter(RateLimiter):
    """Count in Redis, and in this process alone while Redis is unavailable.

    Limits that guard money fail closed: their requests are refused while Redis is unavailable. Other limits are then
    counted by each process for itself.
    """

    def __init__(self, shared: RedisRateLimiter, own: RateLimiter) -> None:
        self._shared = shared
        self._own = own

    async def admit(self, limit_requests: Sequence[LimitRequest]) -> Admission:
        """Count a request under all of its limits, or under none.

        Raises:
            OverLimit: one of them is reached.
            RedisAway: Redis is unavailable, and one of the limits guards money.
        """
        try:
            return await self._shared.admit(limit_requests)
        except RedisAway:
            if any(limit_request.guards_money for limit_request in limit_requests):
                raise
        return await self._own.admit(limit_requests)


def _key(limit_request: LimitRequest) -> str:
    return (
        f"{PREFIX}{'seats' if limit_request.is_concurrent else 'rate'}:{limit_request.policy}:{limit_request.subject}"
    )
