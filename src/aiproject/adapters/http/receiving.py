"""ASGI channels that bound how a request's body comes: not too slowly, and within the memory for all bodies."""

from __future__ import annotations

import asyncio

from aiproject.adapters.http.asgi import Message, Receive
from aiproject.adapters.http.receive_budget import BodyBudget
from aiproject.adapters.net.deadline import Deadline
from aiproject.errors import AiProjectError, BodyTooSlow

__all__ = ["BudgetedReceive", "PacedReceive", "forget_body"]

MIN_BODY_RATE = 4096
"""Bytes a second that a body must come at; twice the slowest modem's of a mobile phone."""

MAX_BODY_SECONDS = 600.0
"""Seconds that a whole body may take. A picture of 3 MB takes five minutes at 10 KB/s; apps give up earlier."""


class PacedReceive:
    """An ASGI ``receive`` that gives up on a slow sender. Only the time counts in which the application waits.

    Bytes that came fast earlier are no credit: the rate is required over every stretch of ``timeout`` seconds.

    Args:
        timeout: seconds without a byte until the sender is given up, and seconds that it may be behind the rate.
        longest: seconds for the whole body.
    """

    __slots__ = ("_deadline", "_is_whole", "_left", "_patience", "_receive", "_timeout")

    def __init__(self, receive: Receive, timeout: float, longest: float = MAX_BODY_SECONDS) -> None:
        self._receive = receive
        self._timeout = timeout
        self._patience = timeout
        self._left = longest
        self._is_whole = False
        self._deadline: Deadline | None = None

    async def __call__(self) -> Message:
        if self._is_whole:  # only the client's hang-up is still to come, for which there is no limit
            return await self._receive()
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            with Deadline(loop, began + min(self._patience, self._left)) as self._deadline:
                message = await self._receive()
        except TimeoutError:
            raise self._fault() from None
        waited = loop.time() - began
        self._left -= waited
        # Time for the bytes that came is added, up to the timeout: a sender that is ahead of the rate gains no more.
        self._patience = min(
            self._timeout, self._patience - waited + len(message.get("body", b"")) / MIN_BODY_RATE
        )  # fmt: skip
        self._is_whole = not message.get("more_body", False)
        return message

    def _fault(self) -> AiProjectError:
        """Return why no more is awaited."""
        return BodyTooSlow()


class BudgetedReceive(PacedReceive):
    """The same for a body that may be large: what it receives is taken from a budget."""

    __slots__ = ("_body",)

    def __init__(self, receive: Receive, timeout: float, body: BodyBudget) -> None:
        super().__init__(receive, timeout)
        self._body = body
        body.on_refused = self._end_waiting

    async def __call__(self) -> Message:
        body = self._body
        if body.refusal is not None:
            raise body.refusal
        message = await super().__call__()
        if size := len(message.get("body", b"")):
            await body.take(size)
        # From now on it cannot be refused any more, since its call may have begun.
        if self._is_whole:
            body.finish()
        return message

    def forget(self) -> None:
        """Give back what the body holds; what still comes is thrown away by the caller."""
        self._body.drop()

    def _end_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.come()

    def _fault(self) -> AiProjectError:
        return self._body.refusal or super()._fault()


def forget_body(receive: Receive) -> None:
    """Say that nothing of a request's body is kept, neither what came nor what is still to come."""
    # Other channels count nothing, and need not know.
    if isinstance(receive, BudgetedReceive):
        receive.forget()
