"""The time limit of a whole call, whichever side delays it."""

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
"""Seconds that an answer may wait for its reader in total before a timeout is attributed to the reader: bursts fill the
buffers of a fast reader, too."""

ERROR_WRITE_SECONDS = 5.0
"""Seconds that the client of a timed-out call has to receive the error."""


class CallTimeLimit:
    """Ends a call that takes too long, while inside, whether it waits for the provider or for its own reader.

    If the reader delayed the call, it would have finished in time otherwise, and it ends as if the client had
    disconnected. If not, the provider took too long.

    Args:
        seconds: the limit of the whole call.
        ends_at: the end of that time, in the loop's time.
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
        # Who is responsible decides what is charged: a call that the provider delays is free, a slow reader pays.
        reader = reader_of(self._scope)
        # Gone already: the answer was only being read to its end.
        if self._client.is_gone:
            self._stream.abort(ClientGone())
        elif reader is not None and (reader.is_behind or reader.seconds_behind > MAX_READER_DELAY):
            # A reader that does not take the answer would not take an error either, so its connection is dropped.
            note(self._scope, seconds_behind=round(reader.seconds_behind, 1))
            self._stream.abort(ClientGone())
            reader.cut()
        else:
            self._stream.abort(UpstreamTimeout("call", self._seconds, sid=self._stream.sid))
            # The client gets an error, and some time to take it.
            if reader is not None:
                self._timer = self._loop.call_later(ERROR_WRITE_SECONDS, reader.cut)
