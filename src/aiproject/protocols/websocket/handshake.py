"""The client's side of the opening handshake of RFC 6455, section 4, without I/O.

The client offers no extension and no subprotocol, so a response that selects one is invalid. A redirect is a refusal.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from typing import Final
from urllib.parse import quote, urlsplit

from aiproject.protocols.websocket.frames import ProtocolViolation

__all__ = [
    "MAX_HANDSHAKE_BODY",
    "ClientHandshake",
    "HandshakeState",
    "HttpAnswer",
    "WebSocketAddress",
    "parse_address",
]

MAX_HANDSHAKE_HEAD: Final = 16 * 1024
"""Bytes of the response without its body."""

MAX_HANDSHAKE_BODY: Final = 2048
"""Bytes of a refusal's body that are read; the gateway's bodies have about a hundred."""

MAX_HANDSHAKE_FIELDS: Final = 100
"""Lines of the response's head."""

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""The constant that the server appends to the key before hashing; RFC 6455, section 1.3."""

_STATUS: Final = re.compile(rb"HTTP/1\.1 ([1-9][0-9]{2})(?: [^\r\n]*)?")
_FIELD_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

_PLAIN: Final = "/:?#[]@!$&'()*+,;=%~"
"""Characters of an address that stay unchanged; `quote` keeps letters, digits and ``_.-~`` anyway."""


@dataclass(frozen=True, slots=True)
class WebSocketAddress:
    """The parts of an address.

    Attributes:
        request: the request of the handshake up to the value of its key.
    """

    host: str
    port: int
    is_secure: bool
    request: bytes


@lru_cache(maxsize=16)
def parse_address(url: str) -> WebSocketAddress:
    """Parse a ``ws`` or ``wss`` address.

    Raises:
        ValueError: ``url`` is not one.
    """
    # Cached, because all calls of a second share one address. Its signature becomes worthless after some minutes.
    parts = urlsplit(url)
    is_secure = parts.scheme == "wss"
    host = parts.hostname
    if host is None or parts.scheme not in ("ws", "wss"):
        raise ValueError("not a websocket's address")
    path = quote(parts.path or "/", safe=_PLAIN) + (f"?{quote(parts.query, safe=_PLAIN)}" if parts.query else "")
    named = parts.netloc.rpartition("@")[2]  # with the port, as the Host field must have it
    if not host.isascii():
        host, named = host.encode("idna").decode(), named.encode("idna").decode()
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {named}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    )
    return WebSocketAddress(host, parts.port or (443 if is_secure else 80), is_secure, request.encode("ascii"))


class HandshakeState(Enum):
    """The progress of a handshake."""

    PENDING = auto()
    ACCEPTED = auto()
    REFUSED = auto()


@dataclass(slots=True)
class HttpAnswer:
    """The head of an HTTP response.

    Attributes:
        fields: by name in lower case; repeated fields are joined by commas.
    """

    status: int
    fields: dict[bytes, bytes]

    def field(self, name: bytes) -> bytes:
        """Return the value of a field; empty if there is none."""
        return self.fields.get(name, b"")

    def is_followed_by(self, body: bytearray) -> bool:
        """Whether ``body`` is the complete body, or as much of it as is read."""
        if self.status < 200 or len(body) >= MAX_HANDSHAKE_BODY:
            return True
        if b"chunked" in self.field(b"transfer-encoding").lower():
            return body.endswith(b"0\r\n\r\n")
        length = self.field(b"content-length")
        # Without a length, the body ends with the connection.
        return length.isdigit() and len(length) < 10 and len(body) >= int(length)


class ClientHandshake:
    """Reads the response to a handshake, however the network splits it.

    Args:
        nonce: sixteen unpredictable bytes.

    Attributes:
        key: the end of the request, before its empty line.
        answer: the head of a refusal, once it has arrived.
        rest: the bytes after the head: the part of a refusal's body that has arrived, or frames.
    """

    __slots__ = ("answer", "key", "rest")

    def __init__(self, nonce: bytes) -> None:
        self.key = binascii.b2a_base64(nonce, newline=False)
        self.answer: HttpAnswer | None = None
        self.rest = bytearray()

    def receive(self, data: bytes) -> HandshakeState:
        """Process the next bytes; must not be called after a state other than ``PENDING``.

        Raises:
            ProtocolViolation: this is not a response to our request.
        """
        rest = self.rest
        rest += data
        if self.answer is None:
            # Bounded in either case: an endless head, and a long one that came in one read.
            end = rest.find(b"\r\n\r\n")
            if end > MAX_HANDSHAKE_HEAD or (end < 0 and len(rest) > MAX_HANDSHAKE_HEAD):
                raise ProtocolViolation(1002, "endless")
            if end < 0:
                return HandshakeState.PENDING
            answer = _parse_head(bytes(rest[:end]))
            del rest[: end + 4]
            if answer.status == 101:
                self._check(answer)
                return HandshakeState.ACCEPTED
            self.answer = answer
        return HandshakeState.REFUSED if self.answer.is_followed_by(rest) else HandshakeState.PENDING

    def _check(self, answer: HttpAnswer) -> None:
        """Validate the response (RFC 6455, section 4.1, "the client MUST validate the server's response")."""
        expected = binascii.b2a_base64(hashlib.sha1(self.key + _GUID).digest(), newline=False)  # noqa: S324 - the RFC's
        if (
            answer.field(b"upgrade").lower() != b"websocket"
            or b"upgrade" not in answer.field(b"connection").lower()
            or answer.field(b"sec-websocket-accept") != expected
            or answer.field(b"sec-websocket-extensions")
            or answer.field(b"sec-websocket-protocol")
        ):
            raise ProtocolViolation(1002, "not the answer to our question")


def _parse_head(head: bytes) -> HttpAnswer:
    lines = head.split(b"\r\n")
    status = _STATUS.fullmatch(lines[0])
    if status is None or len(lines) > MAX_HANDSHAKE_FIELDS:
        raise ProtocolViolation(1002, "not HTTP")
    fields: dict[bytes, bytes] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon or not _FIELD_NAME.fullmatch(name):
            raise ProtocolViolation(1002, "not HTTP")
        name = name.lower()
        value = value.strip(b" \t")
        # RFC 9110, section 5.3: fields of one name are one list. A doubled Sec-WebSocket-Accept thus never matches.
        fields[name] = fields[name] + b", " + value if name in fields else value
    return HttpAnswer(int(status[1]), fields)
