"""What the endpoints of every API that run calls share: errors are rendered, and callers are identified first."""

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
"""Seconds for which an identity stays valid while the body arrives; nearly all bodies take less."""


class Endpoint(ABC):
    """An endpoint that runs calls. Subclasses implement `handle`."""

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
            # The grace period of a stopping server is over. Streams end before that, unless their clients do not read.
            task = asyncio.current_task()
            if task is None or not self._running.is_draining:
                raise
            task.uncancel()
            # The outer layer renders it, because only that layer knows whether a response has begun.
            raise Unavailable("the server is stopping") from None

    @abstractmethod
    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call. An `AiProjectError` that it raises before sending anything is rendered in the
        dialect of its address."""


async def read_identified(
    scope: Scope,
    receive: Receive,
    identify: Callable[[], Awaitable[C]],
    read: Callable[[], Awaitable[bytes]],
) -> tuple[C, bytes]:
    """Return the caller that the request's header fields identify, and the body.

    A refused caller is refused before the body is read. If the body took long, the caller is identified again, because
    the account may have been disabled meanwhile, the key revoked, or the session ended.

    Args:
        identify: returns the caller, or ``None`` for an anonymous one.
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
