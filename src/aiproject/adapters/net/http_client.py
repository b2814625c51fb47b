"""Outgoing HTTP: a session with pooled connections, in which an answer belongs to the request sent before it."""

from __future__ import annotations

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection

from aiproject.adapters.net.dialer import read_pending

__all__ = ["SpokeTooSoon", "open_session"]


class SpokeTooSoon(aiohttp.ClientConnectionError):
    """The peer sent bytes on a connection before the request went out on it; the connection is closed."""


class _Request(ClientRequest):
    """A request that refuses a connection on which something is waiting to be read.

    aiohttp parses such bytes at once and takes what comes out for the answer to the next request.
    """

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        if conn.transport is not None:
            await read_pending(conn.transport)
        if conn.protocol is None or conn.protocol.should_close:
            raise SpokeTooSoon("the connection was not silent")
        return await super().send(conn)


def open_session() -> aiohttp.ClientSession:
    """Return a session for calls to vendors. Close it.

    Cookies have no place between two servers.
    """
    return aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), request_class=_Request)
