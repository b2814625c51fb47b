"""The time limit of a whole call, which binds whoever holds the call up."""

from __future__ import annotations

import asyncio
from types import TracebackType

from aiproject.adapters.http.asgi import Scope, note, reader_of
from aiproject.adapters.http.bodies import ClientGone
from aiproject.calls.client_watch import ClientWatch
from aiproject.errors import UpstreamTimeout
from aiproject.providers.base import ChatStream

__all__ = ["CallTimeLimit"]

MAX_READER_DELAY = 1.0
"""Seconds that an answer may wait for its reader, in all, before a call that runs out of time is the reader's doing:
bursts fill a quick reader's buffers, too."""

ERROR_WRITE_SECONDS = 5.0
"""Seconds within which an error must have been written to the client of a call that ran out of time."""


class CallTimeLimit:
    """Ends a call that takes too long, while inside, whether it waits for the provider or for its own reader.

    A call whose reader kept it waiting would have had time left without that: it ends as if the client had hung up.
    Otherwise it is the provider that took too long.

    Args:
        seconds: that the whole call may take.
        ends_at: when they are over, in the loop's time.
    """

    __slots__ = ("_client", "_loop", "_scope", "_seconds", "_stream", "_timer")

    def __init__(
        self,
        scope: Scope,
        stream: ChatStream,
        client: ClientWatch,
        loop: asyncio.AbstractEventLoop,
        seconds: float,
        ends_at: float,
    ) -> None:
        self._scope = scope
        self._stream = stream
        self._client = client
        self._loop = loop
        self._seconds = seconds
        self._timer = loop.call_at(ends_at, self._end)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()

    def _end(self) -> None:
        reader = reader_of(self._scope)
        if self._client.is_gone:
            self._stream.abort(ClientGone())
        elif reader is not None and (reader.is_behind or reader.seconds_behind > MAX_READER_DELAY):
            note(self._scope, seconds_behind=round(reader.seconds_behind, 1))
            self._stream.abort(ClientGone())
            reader.cut()
        else:
            self._stream.abort(UpstreamTimeout("call", self._seconds, sid=self._stream.sid))
            if reader is not None:
                self._timer = self._loop.call_later(ERROR_WRITE_SECONDS, reader.cut)
