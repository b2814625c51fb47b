"""Middleware for every websocket: a request id, a log line, and errors in the dialect of its address.

An endpoint refuses by raising an error of `aiproject.errors`. Before the handshake is accepted, the client receives an
HTTP response with status and body, as on any address. Afterwards the connection is closed with a code for the error.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from aiproject.adapters.http.asgi import (
    RECORD,
    ASGIApp,
    Message,
    Receive,
    Scope,
    Send,
    answer_headers,
    client_address,
    note,
)
from aiproject.adapters.http.bodies import ClientGone
from aiproject.adapters.http.errors import note_error, send_error
from aiproject.adapters.log import get_logger
from aiproject.errors import AiProjectError, Refused, TooManyRequests, Unavailable

__all__ = ["answer_faults", "log_websocket"]

log = get_logger("web")

DENIAL = "websocket.http.response"
"""The ASGI extension with which a handshake is answered with a status and a body."""

POLICY_VIOLATION, INTERNAL_ERROR, TRY_AGAIN_LATER = 1008, 1011, 1013
"""Close codes (RFC 6455, section 7.4.1, and IANA's registry)."""


async def log_websocket(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, path_to_log: Callable[[str], str]
) -> None:
    """Serve a websocket whose scope contains its record, and write its log line when it ends.

    The line's ``status`` is 101 if the handshake was accepted, otherwise that of the refusal. ``close`` is the close
    code of the side that closed first.
    """
    status = 0
    close: int | None = None
    began = time.perf_counter()

    async def watched_send(message: Message) -> None:
        nonlocal status, close
        match message["type"]:
            case "websocket.accept":
                status = 101
                message["headers"] = [*message.get("headers", ()), *answer_headers(scope).items()]
            case "websocket.http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *answer_headers(scope).items()]
            case "websocket.close":
                if not status:
                    status = 403  # the server's response to a close before the handshake
                elif close is None:
                    close = message.get("code", 1000)
        try:
            await send(message)
        except OSError:  # in ASGI this means that the client has disconnected
            raise ClientGone from None

    async def watched_receive() -> Message:
        nonlocal close
        message = await receive()
        if message["type"] == "websocket.disconnect" and close is None:
            close = message.get("code", 1005)
        return message

    try:
        await app(scope, watched_receive, watched_send)
    finally:
        log.info(
            "websocket",
            path=path_to_log(scope["path"]),
            client=client_address(scope),
            status=status,
            close=close,
            ms=round((time.perf_counter() - began) * 1000, 1),
            **scope[RECORD],
        )


async def answer_faults(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, report_bug: Callable[[Exception], None]
) -> None:
    """Serve a websocket whose endpoint may raise an error, which is answered or closes the connection.

    Args:
        report_bug: called with an exception that is not an error of `aiproject.errors`.
    """
    has_answered = is_closed = False

    async def watched_send(message: Message) -> None:
        nonlocal has_answered, is_closed
        has_answered = True
        is_closed = is_closed or (message["type"] != "websocket.accept" and message["type"] != "websocket.send")
        await send(message)

    try:
        await app(scope, receive, watched_send)
    except ClientGone:
        note(scope, outcome="client gone")
    except Exception as error:  # noqa: BLE001 - answered as 500 or 1011, logged loudly
        if not isinstance(error, AiProjectError):
            report_bug(error)
        if not has_answered:
            await _deny(scope, send, error)
            return
        note_error(scope, error)
        if not is_closed:
            await send({"type": "websocket.close", "code": _close_code(error)})


async def _deny(scope: Scope, send: Send, error: Exception) -> None:
    """Answer the handshake over HTTP."""
    if DENIAL not in scope.get("extensions", {}):
        note_error(scope, error)
        await send({"type": "websocket.close", "code": _close_code(error)})  # which the server answers with 403
        return

    async def send_denial(message: Message) -> None:
        await send({**message, "type": f"websocket.{message['type']}"})

    await send_error(scope, send_denial, error)


def _close_code(error: Exception) -> int:
    if isinstance(error, TooManyRequests | Unavailable):
        return TRY_AGAIN_LATER
    return POLICY_VIOLATION if isinstance(error, Refused) else INTERNAL_ERROR
