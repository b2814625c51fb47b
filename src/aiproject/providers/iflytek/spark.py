"""iFlytek Spark over websocket: one question a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from aiproject.adapters.net.websocket import ConnectionEnded, WebSocketConnection
from aiproject.errors import UpstreamFailed, UpstreamNonsense, UpstreamRefused, UpstreamTimeout, UpstreamTruncated
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
"""What the platform says when more connections are open than the application may have (chat chapter A8)."""


class IflytekSpark:
    """A Spark model: an address and the ``domain`` that fits it. Implements `ChatProvider`.

    Args:
        warm: connections that are kept open for the next questions, at most; see `WarmConnectionPool`.
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
        """Let go of the connections that wait."""
        self.warm_pool.close()

    def limits(self, model: str) -> ModelLimits:
        """Implements `ChatProvider.limits`: there is one model, whatever it is called."""
        return ModelLimits(context_limit(self._domain), completion_limit(self._domain))

    def estimate_tokens(self, text: str) -> int:
        """Implements `ChatProvider.estimate_tokens`."""
        return estimate_tokens(text)

    def estimate_prompt(self, messages: Iterable[ChatMessage]) -> int:
        """Implements `ChatProvider.estimate_prompt`; messages of white space alone are not sent."""
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
                except (UpstreamTruncated, UpstreamNonsense) as failure:
                    if not failure.retryable:
                        raise
                    # It ended while it waited and nothing was answered, or it spoke before it was asked: not worth a
                    # pause, nor one of the tries.
            return await self._begin(await self._connector.open(self._url), question, on_sent, is_warm=False)
        except UpstreamRefused as refusal:
            if refusal.code in CONNECTION_LIMIT_CODES:
                self.warm_pool.limit_reached()
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
            connection.close()
            raise
        return stream


class SparkStream:
    """One Spark answer. Implements `ChatStream`.

    Args:
        on_close: called once, when the connection is let go of.

    Attributes:
        is_warm: the connection was open before there was a question.
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
        self._ends_at = asyncio.get_running_loop().time() + connector.limits.call
        self._call = connector.limits.call
        self._first: list[ChatEvent] = []
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
        await self._connection.check_silence()
        try:
            self._connection.send(question)
        except ConnectionEnded:
            self._answer.connection_ended()
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
            if left < limit:
                raise UpstreamTimeout("call", self._call, sid=self._answer.sid) from None
            raise UpstreamTimeout(phase, limit, sid=self._answer.sid) from None
        except ConnectionEnded:
            self._answer.connection_ended()
            raise  # not reached: after the last frame nobody asks for another
        events: list[ChatEvent] = []
        try:
            self._answer.receive_all(frames, events)
        except UpstreamFailed as failure:
            self._connector.redact(failure)
            if not events:
                raise
            self._failure = failure
        if self._answer.finished:
            # The platform closes after the last frame; what it says then does not matter (chat chapter A7).
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
