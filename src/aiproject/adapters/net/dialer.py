"""Fast connections to a host: its addresses are cached for a while and raced, and TLS sessions are resumed.

Racing is RFC 8305's ("happy eyeballs"), by aiohappyeyeballs, which aiohttp uses too: a host whose IPv6 is broken costs
a quarter of a second and not the connect timeout.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from functools import lru_cache
from typing import Any

import aiohappyeyeballs

__all__ = ["Dialer", "ResumingContext", "client_tls", "read_pending"]

REMEMBERED_SECONDS = 60.0
"""How long a host's addresses are used without a new look-up. The platform's DNS records have a TTL of minutes."""

HEAD_START = 0.25
"""Seconds until the next address is tried beside the last one; the value that RFC 8305, section 8, recommends."""

AddrInfo = tuple[int, int, int, str, Any]


class Dialer:
    """Opens TCP connections to hosts by cached addresses.

    While DNS fails, the last known addresses remain in use, so that a short outage of it is none of ours.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[float, list[AddrInfo]]] = {}
        self._asking: dict[tuple[str, int], asyncio.Task[list[AddrInfo]]] = {}

    async def connect(self, host: str, port: int) -> socket.socket | None:
        """Return a connected socket; ``None`` for a numeric address, which needs neither a look-up nor a race.

        Raises:
            OSError: none of its addresses answers, or there is no such host.
        """
        if _is_number(host):
            return None
        sock = await aiohappyeyeballs.start_connection(
            await self._addresses(host, port),
            happy_eyeballs_delay=HEAD_START,
            interleave=1,
            loop=asyncio.get_running_loop(),
        )
        # A question is one small write, which Nagle's algorithm would hold back until the handshake's bytes are
        # acknowledged. The event loop sets this on its own sockets, not on one that it is given.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    async def _addresses(self, host: str, port: int) -> list[AddrInfo]:
        loop = asyncio.get_running_loop()
        key = (host, port)
        asked_at, known = self._known.get(key, (0.0, []))
        if known and loop.time() - asked_at < REMEMBERED_SECONDS:
            return known
        asking = self._asking.get(key)
        if asking is None:
            # Concurrent callers share one look-up, which goes on for the others when one of them gives up.
            asking = self._asking[key] = loop.create_task(self._ask(host, port))
            asking.add_done_callback(lambda _: self._asking.pop(key, None))
        try:
            return await asyncio.shield(asking)
        except OSError:
            if known:
                return known
            raise

    async def _ask(self, host: str, port: int) -> list[AddrInfo]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        addresses: list[AddrInfo] = [
            (family, kind, protocol, name, place) for family, kind, protocol, name, place in found
        ]
        self._known[host, port] = (loop.time(), addresses)
        return addresses


class ResumingContext(ssl.SSLContext):
    """A client's TLS context that resumes the last session with a host, which saves a round trip and a signature.

    asyncio and uvloop make their TLS objects by `wrap_bio` and have no parameter for a session, so it is added here. A
    TLS 1.3 server issues tickets after the handshake, so a session is read when the next connection needs one.
    """

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        host = str(server_hostname)
        latest: dict[str, ssl.SSLObject] = _of(self, "_latest")
        sessions: dict[str, ssl.SSLSession] = _of(self, "_sessions")
        # One object per host outlives its connection, because its tickets may have come with the last bytes.
        previous = latest[host].session if host in latest else None
        if previous is not None and previous.has_ticket:
            sessions[host] = previous
        made = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session or sessions.get(host))
        latest[host] = made
        return made


def _of(context: ResumingContext, name: str) -> dict[str, Any]:
    # SSLContext is constructed by __new__ with its own arguments, so these attributes are added on first use.
    kept: dict[str, Any] = context.__dict__.setdefault(name, {})
    return kept


def client_tls() -> ResumingContext:
    """Return the context for connections to vendors: certificates and names are checked, TLS 1.2 or newer."""
    context = ResumingContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context


async def read_pending(transport: asyncio.BaseTransport) -> None:
    """Let the event loop read what the system holds for a connection, an end of it included.

    What is there now was sent before anything that we send next, so it answers nothing of that. Asking the system about
    the one connection would cost more than a turn of the loop: such a call lets go of the interpreter, and while
    another thread (SQLite's) wants it, it takes a while to come back.
    """
    await asyncio.sleep(0)
    if isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop):
        # uvloop calls protocols while it polls. asyncio's own loop queues these calls behind what was ready before,
        # this coroutine included.
        await asyncio.sleep(0)
    if transport.is_closing():
        await asyncio.sleep(0)  # the protocol hears of the end one turn later


@lru_cache(maxsize=64)
def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
