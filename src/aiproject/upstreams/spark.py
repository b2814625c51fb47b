"""iFlytek Spark over websocket: one question a connection."""

from __future__ import annotations

import asyncio

from aiproject.adapters.websocket import ConnectionEnded, WebSocketConnection
from aiproject.errors import UpstreamFailed, UpstreamTimeout
from aiproject.protocols.chat import ChatEvent, ChatRequest, Usage
from aiproject.protocols.spark import SparkAnswer, build_request
from aiproject.upstreams.interface import ChatStream
from aiproject.upstreams.link import Link

__all__ = ["SparkUpstream"]


class SparkUpstream:
    """A Spark model: an address and the ``domain`` that fits it. Implements `ChatUpstream`."""

    def __init__(self, link: Link, *, url: str, domain: str) -> None:
        self._link = link
        self._url = url
        self._domain = domain

    async def ask(self, request: ChatRequest) -> ChatStream:
        """Implements `ChatUpstream.ask`."""
        question = build_request(request, app_id=self._link.credentials.app_id, domain=self._domain)
        return await self._link.attempt(lambda: self._ask_once(question), service="spark")

    async def _ask_once(self, question: bytes) -> SparkStream:
        connection = await self._link.open(self._url)
        try:
            stream = SparkStream(connection, self._link)
            await stream.start(question)
        except BaseException:
            connection.close()
            raise
        return stream


class SparkStream:
    """One Spark answer. Implements `ChatStream`."""

    def __init__(self, connection: WebSocketConnection, link: Link) -> None:
        self._connection = connection
        self._answer = SparkAnswer()
        self._gap = link.limits.gap
        self._first_frame = link.limits.first_frame
        self._ends_at = asyncio.get_running_loop().time() + link.limits.call
        self._call = link.limits.call
        self._first: list[ChatEvent] = []
        self._failure: UpstreamFailed | None = None

    @property
    def sid(self) -> str | None:
        return self._answer.sid

    @property
    def usage(self) -> Usage | None:
        return self._answer.usage

    async def start(self, question: bytes) -> None:
        """Send the question and wait for the first event."""
        try:
            self._connection.send(question)
        except ConnectionEnded:
            self._answer.connection_ended()
        self._first = await self._next(self._first_frame, "first frame")

    async def receive(self) -> list[ChatEvent]:
        """Implements `ChatStream.receive`."""
        if self._first:
            events, self._first = self._first, []
            return events
        return await self._next(self._gap, "gap")

    async def _next(self, limit: float, phase: str) -> list[ChatEvent]:
        if self._failure is not None:
            raise self._failure
        left = self._ends_at - asyncio.get_running_loop().time()
        try:
            frames = await self._connection.receive_all(min(limit, max(left, 0.0)))
        except TimeoutError:
            if left < limit:
                raise UpstreamTimeout("call", self._call, sid=self._answer.sid) from None
            raise UpstreamTimeout(phase, limit, sid=self._answer.sid) from None
        except ConnectionEnded:
            self._answer.connection_ended()
            raise  # not reached: after the last frame nobody asks for another
        events: list[ChatEvent] = []
        try:
            for frame in frames:
                events.append(self._answer.receive(frame))
                if events[-1].is_last:
                    # The platform closes after the last frame; what it says then does not matter (chat chapter A7).
                    self._connection.close()
                    break
        except UpstreamFailed as failure:
            if not events:
                raise
            self._failure = failure
        return events

    def abort(self, reason: BaseException) -> None:
        """Implements `ChatStream.abort`."""
        self._connection.abort(reason)

    def close(self) -> None:
        """Implements `ChatStream.close`."""
        self._connection.close()
