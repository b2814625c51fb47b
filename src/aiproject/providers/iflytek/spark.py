"""iFlytek Spark over websocket: one question per connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from aiproject.adapters.net.websocket import ConnectionEnded, WebSocketConnection
from aiproject.errors import (
    UpstreamFailed,
    UpstreamProtocolViolation,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamTruncated,
)
from aiproject.protocols.chat import ChatEvent, ChatMessage, ChatRequest, Usage
from aiproject.protocols.iflytek.spark.answer import SparkAnswer
from aiproject.protocols.iflytek.spark.estimate import estimate_tokens
from aiproject.protocols.iflytek.spark.models import completion_limit, context_limit
from aiproject.protocols.iflytek.spark.request import build_request
from aiproject.providers.base import ChatStream, ModelLimits
from aiproject.providers.iflytek.connector import IflytekConnector
from aiproject.providers.iflytek.warm_pool import WarmConnectionPool

__all__ = ["IflytekSpark"]


CONNECTION_LIMIT_CODES = frozenset({10006, 11203})
"""The codes for more open connections than the application is allowed (chat chapter A8)."""


class IflytekSpark:
    """A Spark model: a URL and the ``domain`` that fits it. Implements `ChatProvider`.

    Args:
        warm: the largest number of connections kept open for the next questions; see `WarmConnectionPool`.
        concurrency: connections that the vendor allows at once; ``None``: unknown.
    """

    def __init__(
        self, connector: IflytekConnector, *, url: str, domain: str, warm: int = 0, concurrency: int | None = None
    ) -> None:
        self._connector = connector
        self._url = url
        self._domain = domain
        self.warm_pool = WarmConnectionPool(lambda: connector.open(url), max_waiting=warm, concurrency=concurrency)

    def close(self) -> None:
        """Close the waiting connections."""
        self.warm_pool.close()

    def limits(self, model: str) -> ModelLimits:
        """Implements `ChatProvider.limits`: there is only one model, so its name does not matter."""
        return ModelLimits(context_limit(self._domain), completion_limit(self._domain))

    def estimate_tokens(self, text: str) -> int:
        """Implements `ChatProvider.estimate_tokens`."""
        return estimate_tokens(text)

    def estimate_prompt(self, messages: Iterable[ChatMessage]) -> int:
        """Implements `ChatProvider.estimate_prompt`; messages of white space only are not sent."""
        return sum(estimate_tokens(text) for message in messages if not (text := message.text).isspace())

    async def ask(self, request: ChatRequest, *, on_sent: Callable[[], None] = lambda: None) -> ChatStream:
        """Implements `ChatProvider.ask`."""
        question = build_request(request, app_id=self._connector.credentials.app_id, domain=self._domain)
        return await self._connector.attempt(lambda: self._ask_once(question, on_sent), service="spark")

    async def _ask_once(self, question: bytes, on_sent: Callable[[], None]) -> SparkStream:
        warm = self.warm_pool.take()
        try:
            if warm is not None:
                try:
                    return await self._begin(warm, question, on_sent, is_warm=True)
                except (UpstreamTruncated, UpstreamProtocolViolation) as failure:
                    if not failure.retryable:
                        raise
                    # The connection ended while it waited, before any answer, or it sent data before the question. The
                    # vendor is not at fault, so the new connection needs no pause and does not count as an attempt.
            return await self._begin(await self._connector.open(self._url), question, on_sent, is_warm=False)
        except UpstreamRefused as refusal:
            if refusal.code in CONNECTION_LIMIT_CODES:
                self.warm_pool.limit_reached()
            # A stream releases its connection when it is closed. There is none here.
            self.warm_pool.release()
            raise
        except BaseException:
            self.warm_pool.release()
            raise

    async def _begin(
        self, connection: WebSocketConnection, question: bytes, on_sent: Callable[[], None], *, is_warm: bool
    ) -> SparkStream:
        stream = SparkStream(connection, self._connector, is_warm=is_warm, on_close=self.warm_pool.release)
        try:
            await stream.start(question, on_sent)
        except BaseException:
            # Also on cancellation: the platform would generate and bill an answer that nobody reads.
            connection.close()
            raise
        return stream


class SparkStream:
    """One Spark answer. Implements `ChatStream`.

    Args:
        on_close: called once, when the connection is released.

    Attributes:
        is_warm: whether the connection was open before the question came.
    """

    native_format = "spark"

    def __init__(
        self,
        connection: WebSocketConnection,
        connector: IflytekConnector,
        *,
        is_warm: bool,
        on_close: Callable[[], None],
    ) -> None:
        self.is_warm = is_warm
        self._on_close: Callable[[], None] | None = on_close
        self._connection = connection
        self._answer = SparkAnswer()
        self._connector = connector
        self._gap = connector.limits.gap
        self._first_frame = connector.limits.first_frame
        # The deadline of `IflytekConnector.attempt` ends with the first event; this one bounds the rest of the answer.
        self._ends_at = asyncio.get_running_loop().time() + connector.limits.call
        self._call = connector.limits.call
        self._first: list[ChatEvent] = []
        # A failure in the same read as usable frames: the next read raises it, after their events.
        self._failure: UpstreamFailed | None = None

    @property
    def sid(self) -> str | None:
        return self._answer.sid

    @property
    def usage(self) -> Usage | None:
        return self._answer.usage

    async def start(self, question: bytes, on_sent: Callable[[], None]) -> None:
        """Send the question and wait for the first event.

        Args:
            on_sent: called in between.
        """
        # The protocol has no message before the question. Data that has arrived by now would be taken for the answer.
        await self._connection.check_silence()
        try:
            self._connection.send(question)
        except ConnectionEnded:
            self._answer.connection_ended()
        # Before the first frame: the platform may bill a question that reached it even if no answer follows.
        on_sent()
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
            # The limit that expired first determines the reported phase.
            if left < limit:
                raise UpstreamTimeout("call", self._call, sid=self._answer.sid) from None
            raise UpstreamTimeout(phase, limit, sid=self._answer.sid) from None
        except ConnectionEnded:
            self._answer.connection_ended()
            raise  # not reached: nothing is requested after the last frame
        # One list for all frames of a read, so that the events before a failing frame are kept.
        events: list[ChatEvent] = []
        try:
            self._answer.receive_all(frames, events)
        except UpstreamFailed as failure:
            self._connector.redact(failure)
            if not events:
                raise
            self._failure = failure
        if self._answer.finished:
            # The platform closes after the last frame; how it closes has no meaning (chat chapter A7).
            self._connection.close()
        return events

    def abort(self, reason: BaseException) -> None:
        """Implements `ChatStream.abort`."""
        self._connection.abort(reason)

    def close(self) -> None:
        """Implements `ChatStream.close`."""
        self._connection.close()
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()
