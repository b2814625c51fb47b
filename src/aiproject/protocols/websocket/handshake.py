"""The client's half of the opening handshake of RFC 6455, section 4, without I/O.

No extension and no subprotocol is offered, so that an answer which names one is none; a redirect is a refusal.
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
    "MAX_HANDSHAKE_HEAD",
    "ClientHandshake",
    "HandshakeState",
    "HttpAnswer",
    "WebSocketAddress",
    "parse_address",
]

MAX_HANDSHAKE_HEAD: Final = 16 * 1024
"""Bytes of the handshake's answer without its body."""

MAX_HANDSHAKE_BODY: Final = 2048
"""Bytes of a refusal's body that are looked at; the gateway's are about a hundred."""

MAX_HANDSHAKE_FIELDS: Final = 100
"""Lines of the handshake's answer."""

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""What the server hashes the key with; RFC 6455, section 1.3."""

_STATUS: Final = re.compile(rb"HTTP/1\.1 ([1-9][0-9]{2})(?: [^\r\n]*)?")
_FIELD_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

_PLAIN: Final = "/:?#[]@!$&'()*+,;=%~"
"""What stands in an address as it is; `quote` leaves letters, digits and ``_.-~`` alone anyway."""


@dataclass(frozen=True, slots=True)
class WebSocketAddress:
    """An address taken apart.

    Attributes:
        request: the handshake's request up to the value of its key.
    """

    host: str
    port: int
    is_secure: bool
    request: bytes


@lru_cache(maxsize=16)
def parse_address(url: str) -> WebSocketAddress:
    """Take a ``ws`` or ``wss`` address apart.

    Raises:
        ValueError: it is none.
    """
    # Remembered, because all calls of a second have the same address; its signature is worthless after some minutes.
    parts = urlsplit(url)
    is_secure = parts.scheme == "wss"
    host = parts.hostname
    if host is None or parts.scheme not in ("ws", "wss"):
        raise ValueError("not a websocket's address")
    path = quote(parts.path or "/", safe=_PLAIN) + (f"?{quote(parts.query, safe=_PLAIN)}" if parts.query else "")
    named = parts.netloc.rpartition("@")[2]
    if not host.isascii():
        host, named = host.encode("idna").decode(), named.encode("idna").decode()
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {named}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    )
    return WebSocketAddress(host, parts.port or (443 if is_secure else 80), is_secure, request.encode("ascii"))


class HandshakeState(Enum):
    """How far a handshake has got."""

    PENDING = auto()
    ACCEPTED = auto()
    REFUSED = auto()


@dataclass(slots=True)
class HttpAnswer:
    """The head of an HTTP answer.

    Attributes:
        fields: by name in small letters; those that came several times joined by commas.
    """

    status: int
    fields: dict[bytes, bytes]

    def field(self, name: bytes) -> bytes:
        """Its value; empty where there is none."""
        return self.fields.get(name, b"")

    def is_followed_by(self, body: bytearray) -> bool:
        """Whether ``body`` is all of its body, or as much as is looked at."""
        if self.status < 200 or len(body) >= MAX_HANDSHAKE_BODY:
            return True
        if b"chunked" in self.field(b"transfer-encoding").lower():
            return body.endswith(b"0\r\n\r\n")
        length = self.field(b"content-length")
        # Without a length, it ends with the connection.
        return length.isdigit() and len(length) < 10 and len(body) >= int(length)


class ClientHandshake:
    """Reads the answer to a handshake, wherever the network cuts it.

    Args:
        nonce: sixteen bytes that nobody can foresee.

    Attributes:
        key: what the request ends with, before its empty line.
        answer: the head of a refusal, once it is here.
        rest: the bytes behind the answer's head: of a refusal its body, as far as it has come; else frames.
    """

    __slots__ = ("answer", "key", "rest")

    def __init__(self, nonce: bytes) -> None:
        self.key = binascii.b2a_base64(nonce, newline=False)
        self.answer: HttpAnswer | None = None
        self.rest = bytearray()

    def receive(self, data: bytes) -> HandshakeState:
        """Read the next bytes; not to be called after another state than ``PENDING``.

        Raises:
            ProtocolViolation: it is no answer to our request.
        """
        rest = self.rest
        rest += data
        if self.answer is None:
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
        """Section 4.1, "the client MUST validate the server's response"."""
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
        fields[name] = fields[name] + b", " + value if name in fields else value
    return HttpAnswer(int(status[1]), fields)
