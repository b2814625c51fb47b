"""Outgoing websocket connections: a client of RFC 6455 on the event loop's transports.

Messages are whole and awaited, with a limit on each wait; the sender is held back while the reader is behind. No
extension is offered, no redirect followed, no proxy asked.

This is the relay's own leg to the platform, a connection for each chat, and what it costs decides what a chat costs; so
it is our own code and no library's, see ``docs/decisions/0024-own-websocket-client.md``.
"""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import os
import re
import socket
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, cast
from urllib.parse import quote, urlsplit

import numpy as np

from aiproject.adapters.net.deadline import Deadline
from aiproject.adapters.net.dialer import Dialer, read_pending
from aiproject.errors import UpstreamNonsense, UpstreamTimeout, UpstreamUnreachable
from aiproject.protocols.iflytek.error_codes import quote as quote_vendor

__all__ = ["ConnectionEnded", "WebSocketConnection", "connect"]

MAX_MESSAGE_BYTES = 1024 * 1024
"""A vendor's frame is some hundred bytes; a megabyte leaves room for whole answers and stops a flood."""

MAX_FRAGMENTS = 10_000
"""Frames of one message; a bound on empty ones, which have no size."""

MAX_QUEUED_BYTES = 256 * 1024
"""Unread bytes at which reading from the socket pauses. A chat frame has about 250 bytes: some thousand frames. What
one reading brings is kept whole, so that up to the system's receive buffer (some megabytes) may come on top."""

MAX_HANDSHAKE_HEAD = 16 * 1024
"""Bytes of the handshake's answer without its body."""

MAX_HANDSHAKE_BODY = 2048
"""Bytes of a refusal's body that are looked at; the gateway's are about a hundred."""

MAX_HANDSHAKE_FIELDS = 100
"""Lines of the handshake's answer."""

MESSAGE_COST = 32
"""What a queued message counts beside its bytes, so that empty ones are bounded, too."""

LONG = 512
"""Bytes of a message from which on numpy masks it sooner than a long integer does, which takes 3 us for a kilobyte."""

_CONTINUATION: Final = 0x0
_TEXT: Final = 0x1
_BINARY: Final = 0x2
_CLOSE: Final = 0x8
_PING: Final = 0x9
_PONG: Final = 0xA
_FIN: Final = 0x80
_WHOLE_TEXT: Final = _FIN | _TEXT

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""What the server hashes the key with; RFC 6455, section 1.3."""

_STATUS: Final = re.compile(rb"HTTP/1\.1 ([1-9][0-9]{2})(?: [^\r\n]*)?")
_PLAIN: Final = "/:?#[]@!$&'()*+,;=%~"
"""What stands in an address as it is; `quote` leaves letters, digits and ``_.-~`` alone anyway."""

_FIELD_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class ConnectionEnded(Exception):
    """The peer, or the network, ended the connection.

    Attributes:
        code: the websocket close code; 1006 where there was no close frame.
        reason: the close frame's text, bounded by the protocol to 123 bytes.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"websocket ended: {code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class WebSocketConnection(asyncio.Protocol):
    """One open connection; made by `connect`.

    `receive` may be awaited by one task at a time. `close` and `abort` may be called at any time, repeatedly.

    Args:
        request: the handshake's request up to the value of its key.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, request: bytes) -> None:
        self._loop = loop
        self._request = request
        self._key = b""
        self._answer: _Answer | None = None
        self._opening: asyncio.Future[None] | None = loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._messages: deque[bytes] = deque()
        self._queued = 0
        self._paused = False
        # Bytes of a frame (or of the handshake's answer) that is not whole yet, and how many it takes to go on.
        self._rest = bytearray()
        self._needed = 0
        self._fragments: list[bytes] = []
        self._fragments_size = 0
        # Code and reason are made an exception when somebody asks: most connections end with nobody asking.
        self._end: BaseException | tuple[int, str] | None = None
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._writable: asyncio.Future[None] | None = None
        self._on_disconnected: Callable[[], None] | None = None

    # -- the loop's callbacks -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._key = binascii.b2a_base64(_random(16), newline=False)
        self._transport.write(self._request + self._key + b"\r\n\r\n")

    def data_received(self, data: bytes) -> None:
        if self._end is not None:
            return  # the peer may go on talking until it hears that we closed
        if self._opening is not None:
            self._rest += data
            self._read_handshake()
            return
        rest = self._rest
        if rest:
            rest += data
            if len(rest) < self._needed:
                return
            data = bytes(rest)
            rest.clear()
        self._read_frames(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._opening is not None and not self._opening.done():
            failure = self.refusal() or (exc if isinstance(exc, OSError) else None)
            self._opening.set_exception(
                failure or UpstreamUnreachable("the connection ended during the handshake", retryable=True)
            )
        self._finish((1006, "connection lost"))
        self._disarm()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        if self._on_disconnected is not None:
            self._on_disconnected()

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None:
            if not self._writable.done():
                self._writable.set_result(None)
            self._writable = None

    # -- for the house --------------------------------------------------------------------------------------------

    def send(self, message: bytes) -> None:
        """Send one text message; `drain` afterwards where many are sent.

        Raises:
            ConnectionEnded: the connection is gone.
        """
        if self._end is not None:
            raise self._ending()
        if self._transport is None:
            raise RuntimeError("send before the connection is open")
        self._transport.write(_frame(_TEXT, message))

    async def check_silence(self) -> None:
        """Check that the peer has said nothing yet; for protocols in which it only answers, before the first `send`.

        Whatever came with the handshake, while the connection waited, or just now answers no question of ours. Pings
        and pongs are no message (RFC 6455, section 5.5) and may come at any time. A connection that was closed passes:
        `send` tells.

        Raises:
            UpstreamNonsense: it has begun a message; the connection is closed. Another one may serve.
        """
        if self._transport is not None:
            await read_pending(self._transport)
        if self.has_spoken:
            self._break_off(1002, "spoke before it was asked")
            raise UpstreamNonsense("spoke before it was asked", retryable=True)

    async def drain(self) -> None:
        """Wait until the socket takes more; returns at once most of the time."""
        if self._writable is not None:
            await asyncio.shield(self._writable)

    async def receive(self, timeout: float) -> bytes:
        """Return the next whole message.

        Args:
            timeout: seconds to wait for it.

        Raises:
            TimeoutError: nothing came in time.
            ConnectionEnded: everything was read and nothing more will come.
            BaseException: what `abort` was given.
        """
        if not self._messages:
            await self._wait(timeout)
        message = self._messages.popleft()
        self._queued -= len(message) + MESSAGE_COST
        self._flow()
        return message

    async def receive_all(self, timeout: float) -> deque[bytes]:
        """Return the messages that are here, at least one; waits and raises as `receive` does."""
        if not self._messages:
            await self._wait(timeout)
        messages, self._messages = self._messages, deque()
        self._queued = 0
        self._flow()
        return messages

    async def _wait(self, timeout: float) -> None:
        if self._end is not None:
            raise self._ending()
        self._waiter = self._loop.create_future()
        self._arm(timeout)
        try:
            await self._waiter
        finally:
            self._waiter = None
        if not self._messages:
            raise self._ending()

    def _flow(self) -> None:
        if self._paused and self._queued < MAX_QUEUED_BYTES // 2:
            self._paused = False
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    def abort(self, reason: BaseException) -> None:
        """Wake the reader with ``reason`` (what was queued is dropped) and close."""
        self._messages.clear()
        self._queued = 0
        if not isinstance(self._end, BaseException):
            self._end = reason
        self._wake()
        self.close()

    def close(self) -> None:
        """Say goodbye (1000) if there is still somebody, and let go of the socket without waiting for an answer."""
        self._finish((1000, "closed by us"))
        self._disarm()
        self._hang_up(1000)

    @property
    def is_open(self) -> bool:
        """True while messages may still come."""
        return self._end is None

    @property
    def has_spoken(self) -> bool:
        """True while the peer has begun a message, or sent some, that nobody has read."""
        if self._messages or self._fragments:
            return True
        return bool(self._rest) and self._rest[0] & 0x0F not in (_PING, _PONG, _CLOSE)

    def when_disconnected(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once the socket is gone."""
        self._on_disconnected = callback

    # -- the handshake ------------------------------------------------------------------------------------------------

    async def opened(self) -> None:
        """Wait for the handshake's end; for `connect`, once.

        Raises:
            UpstreamUnreachable: refused, or not answered as RFC 6455 wants it.
            OSError: the network ended the connection.
        """
        if self._opening is not None:
            await self._opening

    def give_up(self) -> None:
        """Let go of a connection that was not opened; for `connect`."""
        if self._opening is not None and not self._opening.cancel() and not self._opening.cancelled():
            self._opening.exception()  # looked at, whether or not somebody waited for it
        self._break_off(1006, "never open")

    def refusal(self) -> UpstreamUnreachable | None:
        """The peer's refusal, once its head is here; its body may be cut off."""
        answer = self._answer
        if answer is None:
            return None
        body = bytes(self._rest[:MAX_HANDSHAKE_BODY]).decode("utf-8", "replace")
        return UpstreamUnreachable(
            f"handshake refused with HTTP {answer.status}: {quote_vendor(body)}",
            status=answer.status,
            server_date=answer.field(b"date").decode("latin-1") or None,
            retryable=answer.status >= 500,
        )

    def _read_handshake(self) -> None:
        rest = self._rest
        if self._answer is None:
            end = rest.find(b"\r\n\r\n")
            if end > MAX_HANDSHAKE_HEAD or (end < 0 and len(rest) > MAX_HANDSHAKE_HEAD):
                self._fail(UpstreamUnreachable("handshake failed: endless", retryable=True))
                return
            if end < 0:
                return
            answer = _parse_answer(bytes(rest[:end]))
            del rest[: end + 4]
            if answer is None:
                self._fail(UpstreamUnreachable("handshake failed: not HTTP", retryable=True))
                return
            if answer.status == 101:
                self._accept(answer)
                return
            self._answer = answer
        if self._answer.is_followed_by(rest):
            self._fail(self.refusal() or ConnectionResetError())

    def _accept(self, answer: _Answer) -> None:
        expected = binascii.b2a_base64(hashlib.sha1(self._key + _GUID).digest(), newline=False)  # noqa: S324
        if (
            answer.field(b"upgrade").lower() != b"websocket"
            or b"upgrade" not in answer.field(b"connection").lower()
            or answer.field(b"sec-websocket-accept") != expected
            or answer.field(b"sec-websocket-extensions")
            or answer.field(b"sec-websocket-protocol")
        ):
            self._fail(UpstreamUnreachable("handshake failed: not the answer to our question", retryable=True))
            return
        opening, self._opening = self._opening, None
        if opening is not None and not opening.done():
            opening.set_result(None)
        if self._rest:
            data = bytes(self._rest)
            self._rest.clear()
            self._read_frames(data)

    def _fail(self, failure: BaseException) -> None:
        if self._opening is not None and not self._opening.done():
            self._opening.set_exception(failure)
        self._break_off(1006, "never open")

    # -- frames -------------------------------------------------------------------------------------------------------

    def _read_frames(self, data: bytes) -> None:
        # Nearly all that comes is a text in one frame, so that is looked for first, with local names.
        messages = self._messages
        size = len(data)
        at = 0
        needed = 2
        queued = 0
        while size - at >= 2:
            first = data[at]
            length = data[at + 1]
            start = at + 2
            if first != _WHOLE_TEXT and not _is_allowed(first, length):
                self._break_off(1002, "no frame of ours")
                break
            if length > 125:
                if length == 126:
                    start += 2
                    needed = 4
                elif length == 127:
                    start += 8
                    needed = 10
                else:
                    self._break_off(1002, "masked")
                    break
                if start > size:
                    break
                length = int.from_bytes(data[at + 2 : start], "big")
                if length > MAX_MESSAGE_BYTES:
                    self._break_off(1009, "message too big")
                    break
            end = start + length
            if end > size:
                needed = end - at
                break
            at = end
            needed = 2
            payload = data[start:end]
            if first == _WHOLE_TEXT and not self._fragments:
                messages.append(payload)
                queued += length + MESSAGE_COST
            else:
                queued += self._take(first, payload)
                if self._end is not None:
                    break
        self._queued += queued
        if messages:
            self._wake()
        if self._end is not None:
            return
        if at < size:
            self._rest += data[at:]
            self._needed = needed
        if self._queued > MAX_QUEUED_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _take(self, first: int, payload: bytes) -> int:
        """Take any frame; returns by how much the queue grew."""
        kind = first & 0x0F
        if kind == _PING:
            # Nothing is owed to one who asks on and on without listening: the last question's answer is on its way.
            if self._writable is None and self._transport is not None:
                self._transport.write(_frame(_PONG, payload))
            return 0
        if kind == _PONG:
            return 0
        if kind == _CLOSE:
            code = int.from_bytes(payload[:2], "big") if len(payload) > 1 else 1005
            self._finish((code, payload[2:].decode("utf-8", "replace")))
            self._hang_up(1000)
            return 0
        if (kind == _CONTINUATION) != bool(self._fragments):
            self._break_off(1002, "fragments out of order")
            return 0
        if not first & _FIN or self._fragments:
            self._fragments.append(payload)
            self._fragments_size += len(payload)
            if self._fragments_size > MAX_MESSAGE_BYTES or len(self._fragments) > MAX_FRAGMENTS:
                self._break_off(1009, "message too big")
                return 0
            if not first & _FIN:
                return 0
            payload = b"".join(self._fragments)
            self._fragments = []
            self._fragments_size = 0
        self._messages.append(payload)
        return len(payload) + MESSAGE_COST

    # -- inside -------------------------------------------------------------------------------------------------------

    def _ending(self) -> BaseException:
        end = self._end or (1006, "connection lost")
        return end if isinstance(end, BaseException) else ConnectionEnded(*end)

    def _break_off(self, code: int, reason: str) -> None:
        self._fragments.clear()
        self._rest.clear()
        self._closed = True
        self._finish((code, reason))
        if self._transport is not None:
            self._transport.abort()

    def _hang_up(self, code: int) -> None:
        transport = self._transport
        if self._closed or transport is None:
            return
        self._closed = True
        if transport.is_closing():
            return
        if self._paused:
            # A paused transport never sees the peer's end; nothing is read any more, so let it flow.
            self._paused = False
            transport.resume_reading()
        transport.write(_frame(_CLOSE, code.to_bytes(2, "big")))
        transport.close()

    def _finish(self, end: tuple[int, str]) -> None:
        if self._end is None:
            self._end = end
            self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _arm(self, timeout: float) -> None:
        # One timer serves many waits: it is set anew only when it fires early or a wait is shorter than its rest, so
        # that a frame costs no timer.
        now = self._loop.time()
        self._deadline = now + timeout
        if self._timer is None or self._timer_due > self._deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_due = self._deadline
            self._timer = self._loop.call_at(self._deadline, self._tick)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        if self._loop.time() + 0.001 >= self._deadline:
            waiter.set_exception(TimeoutError())
        else:
            self._timer_due = self._deadline
            self._timer = self._loop.call_at(self._deadline, self._tick)


@dataclass(frozen=True, slots=True)
class _Place:
    """An address taken apart.

    Attributes:
        request: the handshake's request up to the value of its key.
    """

    host: str
    port: int
    is_secure: bool
    request: bytes


@lru_cache(maxsize=16)
def _place(url: str) -> _Place:
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
    return _Place(host, parts.port or (443 if is_secure else 80), is_secure, request.encode("ascii"))


async def connect(
    url: str, *, timeout: float, ssl_context: ssl.SSLContext | None, dialer: Dialer | None = None
) -> WebSocketConnection:
    """Open a connection: address look-up, TCP, TLS and handshake within ``timeout`` seconds. Redirects are refused.

    Args:
        dialer: looks names up and races their addresses; ``None``: the event loop does, for each connection anew.

    Raises:
        UpstreamTimeout: with phase ``connect``.
        UpstreamUnreachable: refused, reset, no such host, bad certificate, or an HTTP answer other than 101; never
            quotes the address, since a signed one holds a signature.
    """
    loop = asyncio.get_running_loop()
    place = _place(url)
    connection = WebSocketConnection(loop, place.request)
    sock: socket.socket | None = None
    is_open = False
    try:
        with Deadline(loop, loop.time() + timeout):
            if dialer is not None:
                sock = await dialer.connect(place.host, place.port)
            tls = (ssl_context or ssl.create_default_context()) if place.is_secure else None
            if sock is None:
                await loop.create_connection(lambda: connection, place.host, place.port, ssl=tls)
            else:
                await loop.create_connection(
                    lambda: connection, sock=sock, ssl=tls, server_hostname=place.host if tls else None
                )
            await connection.opened()
        is_open = True
    except TimeoutError:
        raise connection.refusal() or UpstreamTimeout("connect", timeout, retryable=True) from None
    except ssl.SSLError as error:
        raise UpstreamUnreachable(f"TLS failed: {error.reason or type(error).__name__}", retryable=False) from None
    except OSError as error:
        raise UpstreamUnreachable(
            f"connection failed: {type(error).__name__} {error.errno or ''}".rstrip(), retryable=True
        ) from None
    finally:
        if not is_open:
            connection.give_up()
            if sock is not None:
                sock.close()
    return connection


@dataclass(slots=True)
class _Answer:
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


def _parse_answer(head: bytes) -> _Answer | None:
    """Read the head of an HTTP answer; ``None``: it is none."""
    lines = head.split(b"\r\n")
    status = _STATUS.fullmatch(lines[0])
    if status is None or len(lines) > MAX_HANDSHAKE_FIELDS:
        return None
    fields: dict[bytes, bytes] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon or not _FIELD_NAME.fullmatch(name):
            return None
        name = name.lower()
        value = value.strip(b" \t")
        fields[name] = fields[name] + b", " + value if name in fields else value
    return _Answer(int(status[1]), fields)


def _is_allowed(first: int, length: int) -> bool:
    """Whether a frame may begin like this: no extension was agreed upon, and control frames are short and whole."""
    kind = first & 0x0F
    if first & 0x70:
        return False
    if kind in (_CLOSE, _PING, _PONG):
        return bool(first & _FIN) and length <= 125 and (kind != _CLOSE or length != 1)
    return kind in (_CONTINUATION, _TEXT, _BINARY)


def _frame(kind: int, payload: bytes) -> bytes:
    """One whole frame, masked as a client's must be."""
    length = len(payload)
    if length < 126:
        head = bytes((_FIN | kind, 0x80 | length))
    elif length < 65536:
        head = bytes((_FIN | kind, 0x80 | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((_FIN | kind, 0x80 | 127)) + length.to_bytes(8, "big")
    key = _random(4)
    if length > LONG:
        words = np.frombuffer(payload + bytes(-length % 4), np.uint32)
        return head + key + (words ^ np.frombuffer(key, np.uint32)).tobytes()[:length]
    mask = int.from_bytes((key * (length // 4 + 1))[:length], "big")
    return head + key + (int.from_bytes(payload, "big") ^ mask).to_bytes(length, "big")


_entropy = bytearray()


def _random(count: int) -> bytes:
    """Return ``count`` bytes of the system's randomness, each of them once.

    Fetched by the page: asking the system lets another thread take the interpreter, and waiting for it to come back
    costs a chat more than all its masking.
    """
    if len(_entropy) < count:
        _entropy[:] = os.urandom(4096)
    taken = bytes(_entropy[-count:])
    del _entropy[-count:]
    return taken


# Two processes must not have the same.
os.register_at_fork(after_in_child=_entropy.clear)
