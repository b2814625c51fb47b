"""Finds out whether a client that has closed its sending side is still there to read its answer.

A client that has closed only its sending side and one that is gone look the same: both sent a FIN. They differ in what
happens to the next bytes that are written to them, which the system of a client that is gone answers with a reset. See
``docs/decisions/0025-http1-edges.md``.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final

from aiproject.adapters.http.exchange import CONTINUE

if TYPE_CHECKING:
    from aiproject.adapters.http.http1 import Http1Connection

__all__ = ["HalfClosedWatch"]

PROBE_GRACE: Final = 0.25
"""Seconds that an answer may take after its client has closed its sending side, before the client is probed. Most
answers have begun by then, and what is written of them is the probe."""

PROBE_INTERVAL: Final = 5.0
"""Seconds between further probes: as long may a client that has gone since then remain unnoticed."""

RESET_INTERVAL: Final = 0.1
"""Seconds between two checks for the reset that the system of a client which is gone sends, within `HASTE` of its
half-close."""

LATER_RESET_INTERVAL: Final = 1.0
"""The same from then on: a look takes 16 µs, and one address may hold a thousand connections half-closed."""

HASTE: Final = 1.0
"""Seconds after a half-close in which most clients that have gone are found: the first probe and a round trip."""


class HalfClosedWatch:
    """Watches a half-closed connection for as long as its answer lasts, and drops it once the client is gone.

    The transport does not notice: from the end of what it reads on, it watches its own writes only.
    """

    def __init__(self, connection: Http1Connection) -> None:
        self._connection = connection
        now = connection.loop.time()
        self._next_probe = now + PROBE_GRACE
        self._end_of_haste = now + HASTE
        self._timer: asyncio.TimerHandle | None = connection.loop.call_later(RESET_INTERVAL, self._look)

    def stop(self) -> None:
        """Stop watching; harmless when repeated."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        connection = self._connection
        exchange = connection.exchange
        if exchange is None or exchange.response_complete or connection.transport.is_closing():
            return
        if connection.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            connection.transport.abort()  # its call learns that the client is gone
            return
        now = connection.loop.time()
        if now >= self._next_probe:
            self._next_probe = now + PROBE_INTERVAL
            # Unless it would fall into an answer, of which every piece is a probe anyway, or the client does not know
            # interim answers.
            if not connection.pipeline and not exchange.response_started and exchange.knows_chunks:
                connection.transport.write(CONTINUE)
        interval = RESET_INTERVAL if now < self._end_of_haste else LATER_RESET_INTERVAL
        self._timer = connection.loop.call_later(interval, self._look)
