"""Outgoing HTTP: a session with pooled connections, in which each response belongs to the request sent before it."""

from __future__ import annotations

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection

from aiproject.adapters.net.dialer import read_pending

__all__ = ["SpokeTooSoon", "open_session"]


class SpokeTooSoon(aiohttp.ClientConnectionError):
    """The peer sent bytes on a connection before the request went out on it; the connection is closed."""


class _Request(ClientRequest):
    """A request that refuses a connection on which unread bytes wait.

    aiohttp parses such bytes at once and gives the result to the next request as its response.
    """

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        if conn.transport is not None:
            await read_pending(conn.transport)
        # aiohttp marks a connection so as soon as it reads bytes without a request.
        if conn.protocol is None or conn.protocol.should_close:
            raise SpokeTooSoon("the connection was not silent")
        return await super().send(conn)


def open_session() -> aiohttp.ClientSession:
    """Return a session for calls to vendors. Close it."""
    # Cookies would carry a vendor's session from one caller's call to the next.
    return aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), request_class=_Request)
