"""ASGI ``receive`` channels that limit how slowly a request's body arrives and how much memory all bodies take."""

from __future__ import annotations

import asyncio

from aiproject.adapters.http.asgi import Message, Receive
from aiproject.adapters.http.receive_budget import BodyBudget
from aiproject.adapters.net.deadline import Deadline
from aiproject.errors import AiProjectError, BodyTooSlow

__all__ = ["BudgetedReceive", "PacedReceive", "forget_body"]

MIN_BODY_RATE = 4096
"""Bytes per second at which a body must arrive; twice the rate of a mobile phone's slowest modem."""

MAX_BODY_SECONDS = 600.0
"""Seconds that a complete body may take. A picture of 3 MB takes five minutes at 10 KB/s; apps give up earlier."""


class PacedReceive:
    """An ASGI ``receive`` that gives up on a slow sender. Only time in which the application waits is counted.

    Bytes that arrived quickly earlier earn no credit: the rate is required over every period of ``timeout`` seconds.

    Args:
        timeout: seconds without a byte after which the sender is given up, and seconds that it may lag behind the rate.
        longest: seconds for the complete body.
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
        # After the body, only the client's disconnect can still arrive, and there is no time limit for that.
        if self._is_whole:
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
        # Received bytes earn time, up to the timeout: a sender that is ahead of the rate gains nothing more.
        self._patience = min(
            self._timeout, self._patience - waited + len(message.get("body", b"")) / MIN_BODY_RATE
        )  # fmt: skip
        self._is_whole = not message.get("more_body", False)
        return message

    def _fault(self) -> AiProjectError:
        """Return the error with which waiting for the body ends."""
        return BodyTooSlow()


class BudgetedReceive(PacedReceive):
    """A `PacedReceive` for a body that may be large: the received bytes are taken from a `ReceiveBudget`."""

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
        # From now on the body cannot be refused, since its call may have begun.
        if self._is_whole:
            body.finish()
        return message

    def forget(self) -> None:
        """Return the bytes that the body holds to the budget; the caller discards what still arrives."""
        self._body.drop()

    def _end_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.come()

    def _fault(self) -> AiProjectError:
        return self._body.refusal or super()._fault()


def forget_body(receive: Receive) -> None:
    """Declare that nothing of a request's body is kept, neither received bytes nor those still to arrive."""
    # Other channels do not count bytes.
    if isinstance(receive, BudgetedReceive):
        receive.forget()
