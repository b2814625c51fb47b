"""Open connections that wait for a question, so that a call skips the round trips of TCP, TLS and handshake.

Spark takes one question a connection, but an open one may wait up to 60 s for it (chat chapter A7). The stock holds as
many as calls have been coming lately: it grows by one for each call that found it empty, gives up what a while of calls
did not need, and empties itself when nobody calls. A connection that is taken is replaced at once. One that says
anything before it is asked is dropped: it answers some other question, or none.
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
"""Seconds that a connection waits at most. The platform closes after 60, and our question must still reach it."""

IDLE_SECONDS = 30.0
"""Seconds without a call after which nothing is kept open."""

CHECK_INTERVAL = 5.0
"""Seconds between two looks at the stock."""

RETRY_PAUSE = 10.0
"""Seconds without a new connection after one could not be opened, or the platform said that there are too many."""


@dataclass(slots=True)
class WarmPoolCounts:
    """What has come of it since the start.

    Attributes:
        hits: calls that found a connection.
        misses: calls that had to open their own.
        opened: connections opened for the stock.
        wasted: those that were closed without a question: too old, not needed, ended by the platform, or spoken on.
        failed: those that could not be opened.
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
        """Whether a question may be sent on it."""
        return self.connection.is_open and not self.connection.has_spoken and now - self.since < MAX_AGE


class WarmConnectionPool:
    """The stock of one model's connections.

    Args:
        open_one: opens a signed connection.
        most: connections that wait at most; 0 keeps none.
        concurrency: connections that the vendor allows at once, with those that answer; ``None``: it told no number.

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
        self._opening: set[asyncio.Task[None]] = set()
        self._busy = 0
        self._target = 0
        self._min_waiting = 0
        self._last_call = 0.0
        self._paused_until = 0.0
        self._check_timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def take(self) -> WebSocketConnection | None:
        """Return a connection that waits, the oldest first; ``None``: open your own. `release` ends either."""
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
            self.counts.misses += 1
            self._target = min(self._max_waiting, self._target + 1)
        else:
            self.counts.hits += 1
        self._min_waiting = min(self._min_waiting, len(self._waiting))
        self._respect_concurrency()
        self._refill(now)
        return found

    def release(self) -> None:
        """Say that a call's connection is closed."""
        self._busy -= 1

    def limit_reached(self) -> None:
        """The platform says that too many are open: let the waiting ones go, and wait before there are new ones."""
        self._paused_until = asyncio.get_running_loop().time() + RETRY_PAUSE
        self._target = 0
        self._empty()

    def close(self) -> None:
        """Let go of everything; harmless when repeated."""
        self._is_closed = True
        if self._check_timer is not None:
            self._check_timer.cancel()
            self._check_timer = None
        for task in self._opening:
            task.cancel()
        self._empty()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _respect_concurrency(self) -> None:
        """A call's own connection goes before those that would only wait."""
        while self._concurrency is not None and self._open_now() > self._concurrency:
            if self._waiting:
                self._drop(self._waiting.popleft())
            elif self._opening:
                self._opening.pop().cancel()
            else:
                return  # so many calls at once: the platform will say what it makes of them

    def _open_now(self) -> int:
        return self._busy + len(self._waiting) + len(self._opening)

    def _refill(self, now: float) -> None:
        if self._is_closed or now < self._paused_until:
            return
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
            # The call that needs one will meet the same and tell it; here it only stops us from trying on and on.
            self.counts.failed += 1
            self._paused_until = loop.time() + RETRY_PAUSE
            log.info("no connection to keep ready", error=type(failure).__name__)
            return
        self.counts.opened += 1
        waiting = _WaitingConnection(connection, loop.time())
        if self._is_closed or len(self._waiting) >= self._target:
            self._drop(waiting)  # nobody wants it any more: it was ordered before a quiet while, or a word of too many
        else:
            self._waiting.append(waiting)

    def _schedule_check(self) -> None:
        self._check_timer = asyncio.get_running_loop().call_later(CHECK_INTERVAL, self._check)

    def _check(self) -> None:
        """Renew what grows old, give up what was not needed."""
        self._check_timer = None
        now = asyncio.get_running_loop().time()
        if now - self._last_call > IDLE_SECONDS:
            self._target = 0
            self._empty()
            return
        # What waited all the time since the last look was one too many, at least.
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
