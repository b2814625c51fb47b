"""A pool of open connections that wait for a question, so that a call skips the round trips of TCP, TLS and handshake.

Spark accepts one question per connection, but an open connection may wait up to 60 s for it (chat chapter A7). The size
of the pool follows the demand: it grows by one for each call that finds it empty, shrinks by what the calls of a period
did not need, and becomes empty when there are no calls. A connection that is taken is replaced immediately. One that
sends data before its question is dropped, because the data does not belong to that question.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiproject.adapters.log import get_logger
from aiproject.adapters.net.websocket import WebSocketConnection
from aiproject.errors import UpstreamFailed

__all__ = ["WarmConnectionPool"]

log = get_logger("upstreams")

MAX_AGE = 45.0
"""Seconds that a connection may wait. The platform closes after 60, and a question must arrive before that."""

IDLE_SECONDS = 30.0
"""Seconds without a call after which no connection is kept."""

CHECK_INTERVAL = 5.0
"""Seconds between two checks of the pool."""

RETRY_PAUSE = 10.0
"""Seconds without new connections after a failure to open one, or after the platform reported too many."""


@dataclass(slots=True)
class WarmPoolCounts:
    """Counters since the start.

    Attributes:
        hits: calls that found a connection.
        misses: calls that had to open their own.
        opened: connections opened for the pool.
        wasted: connections closed without a question: too old, not needed, ended by the platform, or with early data.
        failed: connections that could not be opened.
    """

    hits: int = 0
    misses: int = 0
    opened: int = 0
    wasted: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class _WaitingConnection:
    connection: WebSocketConnection
    since: float

    def is_usable(self, now: float) -> bool:
        """Whether a question may be sent on this connection."""
        return self.connection.is_open and not self.connection.has_spoken and now - self.since < MAX_AGE


class WarmConnectionPool:
    """The pool of one model's connections.

    Args:
        connect: opens a signed connection.
        max_waiting: the largest number of waiting connections; 0 disables the pool.
        concurrency: connections that the vendor allows at once, including those in use; ``None``: unknown.

    Attributes:
        counts: see `WarmPoolCounts`.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[WebSocketConnection]], *, max_waiting: int, concurrency: int | None = None
    ) -> None:
        self.counts = WarmPoolCounts()
        self._connect = connect
        self._max_waiting = max_waiting
        self._concurrency = concurrency
        self._waiting: deque[_WaitingConnection] = deque()
        # Strong references, because the event loop keeps only weak ones to its tasks.
        self._opening: set[asyncio.Task[None]] = set()
        # Connections in use count towards the vendor's limit until their calls release them.
        self._busy = 0
        self._target = 0
        self._min_waiting = 0
        self._last_call = 0.0
        self._paused_until = 0.0
        self._check_timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def take(self) -> WebSocketConnection | None:
        """Return the oldest waiting connection; ``None``: open your own. Either way, call `release` once at the end."""
        # The oldest first: the others remain usable for longer.
        now = asyncio.get_running_loop().time()
        self._last_call = now
        self._busy += 1
        found = None
        while self._waiting and found is None:
            waiting = self._waiting.popleft()
            if waiting.is_usable(now):
                found = waiting.connection
            else:
                self._drop(waiting)
        if found is None:
            # A miss shows that the pool is smaller than the demand.
            self.counts.misses += 1
            self._target = min(self._max_waiting, self._target + 1)
        else:
            self.counts.hits += 1
        self._min_waiting = min(self._min_waiting, len(self._waiting))
        # Before refilling: a call's own connection takes precedence over waiting ones.
        self._respect_concurrency()
        self._refill(now)
        return found

    def release(self) -> None:
        """Report that a call's connection is closed."""
        self._busy -= 1

    def limit_reached(self) -> None:
        """React to a report of too many connections: close the waiting ones, and pause before opening others."""
        self._paused_until = asyncio.get_running_loop().time() + RETRY_PAUSE
        self._target = 0
        self._empty()

    def close(self) -> None:
        """Close all connections; may be called more than once."""
        self._is_closed = True
        if self._check_timer is not None:
            self._check_timer.cancel()
            self._check_timer = None
        for task in self._opening:
            task.cancel()
        self._empty()

    # -- implementation -----------------------------------------------------------------------------------------------

    def _respect_concurrency(self) -> None:
        """Close waiting connections if a call's own connection would exceed the vendor's limit."""
        while self._concurrency is not None and self._open_now() > self._concurrency:
            if self._waiting:
                self._drop(self._waiting.popleft())
            elif self._opening:
                self._opening.pop().cancel()
            else:
                return  # only calls are left; the platform decides about them

    def _open_now(self) -> int:
        return self._busy + len(self._waiting) + len(self._opening)

    def _refill(self, now: float) -> None:
        if self._is_closed or now < self._paused_until:
            return
        # Negative once the target has shrunk; the loop below does nothing then.
        wanted = self._target - len(self._waiting) - len(self._opening)
        if self._concurrency is not None:
            wanted = min(wanted, self._concurrency - self._open_now())
        for _ in range(wanted):
            task = asyncio.get_running_loop().create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        if self._check_timer is None and self._target:
            self._schedule_check()

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            connection = await self._connect()
        except UpstreamFailed as failure:
            # A call will meet the same error and report it. Here it only has to stop repeated attempts.
            self.counts.failed += 1
            self._paused_until = loop.time() + RETRY_PAUSE
            log.info("no connection to keep ready", error=type(failure).__name__)
            return
        self.counts.opened += 1
        waiting = _WaitingConnection(connection, loop.time())
        if self._is_closed or len(self._waiting) >= self._target:
            self._drop(waiting)  # the demand ended while it was being opened: a quiet period, or a report of too many
        else:
            self._waiting.append(waiting)

    def _schedule_check(self) -> None:
        self._check_timer = asyncio.get_running_loop().call_later(CHECK_INTERVAL, self._check)

    def _check(self) -> None:
        """Replace connections that grow old, and close those that were not needed."""
        self._check_timer = None
        now = asyncio.get_running_loop().time()
        # An idle pool schedules no further check; the next call that finds it empty does.
        if now - self._last_call > IDLE_SECONDS:
            self._target = 0
            self._empty()
            return
        # Connections that waited during the whole interval were not needed. Half of them are given up at each check, so
        # that the pool shrinks gradually.
        self._target -= min(self._target, self._min_waiting // 2)
        for waiting in list(self._waiting):
            if len(self._waiting) > self._target or not waiting.is_usable(now):
                self._waiting.remove(waiting)
                self._drop(waiting)
        self._min_waiting = len(self._waiting)
        self._refill(now)
        if self._check_timer is None:
            self._schedule_check()

    def _empty(self) -> None:
        while self._waiting:
            self._drop(self._waiting.popleft())

    def _drop(self, waiting: _WaitingConnection) -> None:
        self.counts.wasted += 1
        waiting.connection.close()
