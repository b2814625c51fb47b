"""What the legacy endpoints share: errors become the legacy API's answers, and callers are identified first."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiproject.adapters.http.asgi import Receive, Scope, Send, note
from aiproject.adapters.http.bodies import ClientGone, refuse_body
from aiproject.adapters.http.errors import send_error
from aiproject.calls.running import RunningCalls
from aiproject.errors import AiProjectError, Unavailable

__all__ = ["Endpoint", "read_identified"]

C = TypeVar("C")

IDENTITY_SECONDS = 5.0
"""Seconds that a caller's identity is good for while the body arrives; nearly all bodies take less."""


class Endpoint(ABC):
    """An endpoint of the legacy API that runs calls. Subclasses implement `handle`."""

    def __init__(self, running: RunningCalls) -> None:
        self._running = running

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._running.enter():
                await self.handle(scope, receive, send)
        except ClientGone:
            note(scope, outcome="client gone")
        except AiProjectError as error:
            await send_error(scope, send, error)
        except asyncio.CancelledError:
            # The grace of a stopping server ran out (a stream is ended otherwise, unless its client does not read).
            task = asyncio.current_task()
            if task is None or not self._running.is_draining:
                raise
            task.uncancel()
            # Rendered by the outer layer, which knows whether an answer has begun: there is only one.
            raise Unavailable("the server is stopping") from None

    @abstractmethod
    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call. Whatever `AiProjectError` it raises before it sent anything becomes a JSON answer."""


async def read_identified(
    scope: Scope,
    receive: Receive,
    identify: Callable[[], Awaitable[C]],
    read: Callable[[], Awaitable[bytes]],
) -> tuple[C, bytes]:
    """Return who calls, as the request's headers say, and its body.

    A caller who is refused is refused before the body is read. After a body that took long the caller is looked up
    again: the account may be disabled by then, the key revoked, the session ended.

    Args:
        identify: returns the caller, or ``None`` for nobody in particular.
        read: reads the body.
    """
    try:
        principal = await identify()
    except AiProjectError as refusal:
        await refuse_body(receive, scope["headers"], refusal)
    loop = asyncio.get_running_loop()
    valid_until = loop.time() + IDENTITY_SECONDS
    body = await read()
    if principal is not None and loop.time() > valid_until:
        principal = await identify()
    return principal, body
