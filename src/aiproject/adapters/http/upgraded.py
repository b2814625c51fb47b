"""A connection that another protocol has taken over, while what it counts in stays with the first."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiproject.adapters.http.http1 import Http1Connection

__all__ = ["UpgradedConnection"]


class UpgradedConnection(asyncio.Protocol):
    """Passes the transport's calls on to a websocket, and to the connection what it counts."""

    def __init__(self, connection: Http1Connection, websocket: asyncio.Protocol) -> None:
        self._connection = connection
        self._websocket = websocket
        connection.forget()

    def connection_lost(self, exc: Exception | None) -> None:
        self._websocket.connection_lost(exc)
        self._connection.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._websocket.data_received(data)

    def eof_received(self) -> bool | None:
        return self._websocket.eof_received()

    def pause_writing(self) -> None:
        self._websocket.pause_writing()
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()
        self._websocket.resume_writing()
