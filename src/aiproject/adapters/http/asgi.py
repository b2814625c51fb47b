"""What all ASGI endpoints share: log records, JSON responses, clients' addresses, extensions of our server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Protocol

from aiproject.protocols.addresses import address_group, address_site, normalised

__all__ = [
    "CHUNKS",
    "HANG_UP",
    "READER",
    "RECEIVED",
    "RECORD",
    "ASGIApp",
    "ChunkWriter",
    "Message",
    "Reader",
    "Receive",
    "Scope",
    "Send",
    "answer_headers",
    "client_address",
    "client_group",
    "client_site",
    "is_received",
    "note",
    "reader_of",
    "request_id",
    "send_json",
]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

RECORD = "aiproject.record"

CHUNKS = "aiproject.chunks"
"""An extension of our own server's scopes: ``await scope["extensions"][CHUNKS]([piece, …], before, after, is_last=…)``
sends pieces of a chunked body that has begun, each between ``before`` and ``after`` as a chunk of its own, and with the
last of them the body's end, all in one write. Elsewhere each takes a message. See `ChunkWriter`."""

HANG_UP = "aiproject.hang_up"
"""The same: ``scope["extensions"][HANG_UP](callback)`` has ``callback`` called when the client hangs up; ``None`` ends
that. Elsewhere somebody has to wait for ``http.disconnect``."""

READER = "aiproject.reader"
"""The same: ``scope["extensions"][READER]`` is the `Reader` of the answer."""

RECEIVED = "aiproject.received"
"""The same: ``scope["extensions"][RECEIVED]()`` says whether the request's body is here to its end."""

HEADERS = "aiproject.headers"


class ChunkWriter(Protocol):
    """What `CHUNKS` names."""

    async def __call__(
        self, pieces: Sequence[bytes], before: bytes = b"", after: bytes = b"", *, is_last: bool = False
    ) -> None: ...


class Reader(Protocol):
    """The client as it takes its answer.

    Attributes:
        is_behind: nothing more can be written to it now.
        seconds_behind: how long the answer has waited for it, in all.
    """

    @property
    def is_behind(self) -> bool: ...

    @property
    def seconds_behind(self) -> float: ...

    def cut(self) -> None:
        """Drop its connection, with whatever it has not taken yet."""
        ...


def reader_of(scope: Scope) -> Reader | None:
    """Return the request's `Reader`; ``None`` under a server that is not our own."""
    reader: Reader | None = scope.get("extensions", {}).get(READER)
    return reader


def is_received(scope: Scope) -> bool:
    """Return whether the request's body is here to its end; false also where the server does not say."""
    is_here: Callable[[], bool] | None = scope.get("extensions", {}).get(RECEIVED)
    return is_here is not None and is_here()


def request_id(scope: Scope) -> str:
    """Return the id of this request, which its response carries in ``X-Request-Id``."""
    return str(scope[RECORD]["request_id"])


def note(scope: Scope, **fields: Any) -> None:
    """Add fields to this request's log line: numbers and names, no secrets, no prompts."""
    scope[RECORD].update(fields)


def answer_headers(scope: Scope) -> dict[bytes, bytes]:
    """Return the header fields, by lower-case names, that are added to this request's response, whoever sends it."""
    fields: dict[bytes, bytes] = scope.setdefault(HEADERS, {})
    return fields


def client_address(scope: Scope) -> str:
    """Return the client's address, in its one spelling; ``unknown`` on a Unix socket.

    It is the peer's, or what a trusted proxy says of it, see `aiproject.web.forwarding`.
    """
    client = scope.get("client")
    return normalised(str(client[0])) if client else "unknown"


def client_group(scope: Scope) -> str:
    """Return the name under which limits count the client's address: see `address_group`."""
    client = scope.get("client")
    return address_group(str(client[0])) if client else "unknown"


def client_site(scope: Scope) -> str:
    """Return the name under which shares of what all clients need are counted: an IPv4 address, or an IPv6 /48."""
    group = client_group(scope)
    return address_site(group) or group


async def send_json(send: Send, status: int, body: bytes, *, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    """Send a whole JSON answer."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"cache-control", b"no-store"),
                *(headers or ()),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
