"""What every service of the sandbox needs on the wire: session ids, close frames, resets."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import struct
from typing import Final

from aiohttp import WSMsgType, web

__all__ = ["ERROR_CLOSE_DELAY", "close_with", "new_sid", "reset_connection", "send_frame"]

ERROR_CLOSE_DELAY: Final = 0.005
"""Seconds between an error frame and the close, as in the gateway's published source."""

_MAX_REASON_BYTES: Final = 123  # RFC 6455, section 5.5: 125 bytes less the close code


def new_sid(prefix: str) -> str:
    """Return a session id of the form that the platform uses: ``cht000cb087@dx18793cd421fb894542``."""
    return f"{prefix}000{secrets.token_hex(3)[:5]}@dx{secrets.token_hex(9)}"


async def send_frame(ws: web.WebSocketResponse, frame: bytes, *, is_binary: bool = False) -> None:
    """Send one frame. Raises `ConnectionError` if the client has gone."""
    await ws.send_frame(frame, WSMsgType.BINARY if is_binary else WSMsgType.TEXT)


async def close_with(ws: web.WebSocketResponse, reason: str = "", *, code: int = 1000) -> None:
    """Close with a text as the reason, truncated to the length that the protocol allows."""
    cut = reason.encode()[:_MAX_REASON_BYTES].decode("utf-8", "ignore")
    await ws.close(code=code, message=cut.encode())


def reset_connection(transport: asyncio.Transport | None) -> None:
    """End a connection with a TCP reset, as a crashed peer or a firewall does: no close frame and no FIN."""
    if transport is None:  # the client has closed the connection already
        return
    fd = transport.get_extra_info("socket").fileno()
    if fd >= 0:
        # A duplicate, because the socket that uvloop's transports expose does not support setsockopt.
        with socket.socket(fileno=os.dup(fd)) as duplicate:
            duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
