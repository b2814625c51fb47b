"""The way to a Redis or Valkey that nodes share, which may be slow or away without holding anybody up.

A command gets `COMMAND_SECONDS`. After one that failed nobody asks again for `PAUSE_SECONDS`; then one caller tries,
and the others go on without until it has succeeded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from aiproject.adapters.log import get_logger
from aiproject.codes import Detail
from aiproject.errors import Misconfigured, Unavailable
from aiproject.protocols.rate_limits import whole_seconds

if TYPE_CHECKING:
    from redis.asyncio import BlockingConnectionPool, Redis

__all__ = ["COMMAND_SECONDS", "PAUSE_SECONDS", "RedisAway", "RedisLink"]

log = get_logger("redis")

T = TypeVar("T")

COMMAND_SECONDS = 0.5
"""All of one command: a place in the pool, connection, TLS, sending and the answer. In one data centre it takes about a
millisecond; a busy event loop of our own can take some hundred."""

PAUSE_SECONDS = 5.0
"""Nobody is held up more than once in this time, and a Redis that is back is used again after it."""

CONNECTIONS = 32
"""Of each process. A command holds one for about a millisecond."""

SCHEMES = {"valkey": "redis", "valkeys": "rediss"}


class RedisAway(Unavailable):
    """Redis did not answer in time, or not at all.

    Args:
        was_asked: the command may have been carried out all the same.
    """

    def __init__(self, retry_after: float, *, was_asked: bool) -> None:
        super().__init__("redis is away", retry_after=whole_seconds(retry_after))
        self.was_asked = was_asked


class RedisLink:
    """Commands to one Redis. Made by `opened`.

    Attributes:
        redis: the client, for use inside of `run` only.
        pool: its connections.
    """

    def __init__(self, pool: BlockingConnectionPool, clock: Callable[[], float] = time.monotonic) -> None:
        from redis.asyncio import Redis  # several MB, which a server without Redis does not need
        from redis.exceptions import RedisError

        self.pool = pool
        self.redis: Redis = Redis(connection_pool=pool)
        self._failures = (RedisError, OSError, TimeoutError)
        self._clock = clock
        self._is_away = False
        self._silent_until = 0.0

    @classmethod
    @asynccontextmanager
    async def opened(cls, url: str) -> AsyncIterator[RedisLink]:
        """Open the way to a Redis; whether it answers is found out by use.

        Args:
            url: ``redis://``, ``rediss://`` (TLS), ``valkey://``, ``valkeys://`` or ``unix://``; may hold a password.

        Raises:
            Misconfigured: the address cannot be read.
        """
        from redis.asyncio import BlockingConnectionPool
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        scheme, separator, rest = url.partition("://")
        try:
            pool = BlockingConnectionPool.from_url(
                SCHEMES.get(scheme, scheme) + separator + rest,
                max_connections=CONNECTIONS,
                timeout=COMMAND_SECONDS,
                socket_connect_timeout=COMMAND_SECONDS,
                # Once more, for a connection that the server had closed while it was idle.
                retry=Retry(NoBackoff(), 1),
            )
        except (ValueError, TypeError):  # their texts may quote the address
            raise Misconfigured(Detail.REDIS_URL_MALFORMED) from None
        try:
            yield cls(pool)
        finally:
            await pool.aclose()

    @property
    def is_away(self) -> bool:
        """Whether the last command failed."""
        return self._is_away

    async def run(self, command: Callable[[], Awaitable[T]]) -> T:
        """Run a command.

        Raises:
            RedisAway: it failed, or another has failed just now.
        """
        now = self._clock()
        if now < self._silent_until:
            raise RedisAway(self._silent_until - now, was_asked=False)
        if self._is_away:
            self._silent_until = now + PAUSE_SECONDS  # this caller tries, the others go on without
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                answer = await command()
        except self._failures as error:
            self._silent_until = self._clock() + PAUSE_SECONDS
            if not self._is_away:
                self._is_away = True
                # The error's text may hold the address.
                log.warning("redis is away: each process counts for itself", error=type(error).__name__)
            raise RedisAway(PAUSE_SECONDS, was_asked=True) from None
        if self._is_away:
            self._is_away = False
            self._silent_until = 0.0
            log.info("redis is back")
        return answer
