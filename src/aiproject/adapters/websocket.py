"""Outgoing websocket connections, on picows.

picows hands frames to a callback; this adapter turns them into whole messages that are awaited, with a limit on each
wait, and holds the sender back while the reader is behind. Chosen by measurement, see
``docs/decisions/0003-websocket-client.md``.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Callable
from enum import Enum
from functools import lru_cache
from typing import cast

import picows
from picows.picows import WSProtocol  # type: ignore[attr-defined] # left out of its stubs
from picows.url import parse_url

from aiproject.adapters.deadlines import Deadline
from aiproject.adapters.dialing import Dialer
from aiproject.errors import UpstreamTimeout, UpstreamUnreachable

__all__ = ["ConnectionEnded", "WebSocketConnection", "connect"]


class _Silence:
    """What picows gets for a logger: it tells of each connection, with addresses, and would build a logger for each."""

    def isEnabledFor(self, _: int) -> bool:  # noqa: N802 (the name is logging's)
        return False

    def info(self, *_: object) -> None:
        """Say nothing; so do the others."""

    log = warning = error = exception = info


_SILENCE = cast("logging.Logger", _Silence())

MAX_MESSAGE_BYTES = 1024 * 1024
"""A vendor's frame is some hundred bytes; a megabyte leaves room for whole answers and stops a flood."""

MAX_FRAGMENTS = 10_000
"""Frames of one message; a bound on empty ones, which have no size."""

MAX_QUEUED_BYTES = 256 * 1024
"""Unread bytes at which reading from the socket pauses. A chat frame has about 250 bytes: some thousand frames. What
one reading brings is kept whole, so that up to the system's receive buffer (some megabytes) may come on top."""

READ_BUFFER_BYTES = 16 * 1024
"""What a connection's read buffer begins with; it grows with what one reading brings."""

MAX_HANDSHAKE_BODY = 2048
"""Bytes of a refusal's body that are looked at; the gateway's are about a hundred."""


# Looked up once: a module's member of an enumeration costs two look-ups, and a frame is looked at four times.
_TEXT = picows.WSMsgType.TEXT
_BINARY = picows.WSMsgType.BINARY
_CONTINUATION = picows.WSMsgType.CONTINUATION
_CLOSE = picows.WSMsgType.CLOSE


class ConnectionEnded(Exception):
    """The peer, or the network, ended the connection.

    Attributes:
        code: the websocket close code; 1006 where there was no close frame.
        reason: the close frame's text, bounded by the protocol to 123 bytes.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"websocket ended: {self.code} {self.reason}".rstrip()


class WebSocketConnection(picows.WSListener):
    """One open connection; made by `connect`.

    `receive` may be awaited by one task at a time. `close` and `abort` may be called at any time, repeatedly.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: picows.WSTransport | None = None
        self._messages: deque[bytes] = deque()
        self._queued = 0
        self._paused = False
        self._fragments: list[bytes] = []
        self._fragments_size = 0
        self._end: BaseException | None = None
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._writable: asyncio.Future[None] | None = None
        self._on_disconnected: Callable[[], None] | None = None

    # -- picows' callbacks ----------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._transport = transport

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if self._end is not None:
            return  # what else the last reading from the socket brought
        kind = frame.msg_type
        if kind is _TEXT or kind is _BINARY or kind is _CONTINUATION:
            if frame.rsv1 or (kind is _CONTINUATION) != bool(self._fragments):
                self._break_off(transport, 1002, "fragments out of order, or compression that nobody asked for")
                return
            if frame.payload_size > MAX_MESSAGE_BYTES:
                # picows noticed, but goes on parsing until it disconnects, a moment later.
                self._break_off(transport, 1009, "message too big")
                return
            payload = frame.get_payload_as_bytes()
            if not frame.fin or self._fragments:
                self._fragments.append(payload)
                self._fragments_size += len(payload)
                if self._fragments_size > MAX_MESSAGE_BYTES or len(self._fragments) > MAX_FRAGMENTS:
                    self._break_off(transport, 1009, "message too big")
                    return
                if not frame.fin:
                    return
                payload = b"".join(self._fragments)
                self._fragments = []
                self._fragments_size = 0
            self._messages.append(payload)
            self._queued += len(payload)
            if self._queued > MAX_QUEUED_BYTES and not self._paused:
                self._paused = True
                transport.underlying_transport.pause_reading()
            if self._waiter is not None:
                self._wake()
        elif kind is _CLOSE:
            code = _number(frame.get_close_code())
            reason = (frame.get_close_message() or b"").decode("utf-8", "replace")
            self._finish(ConnectionEnded(code or 1005, reason))
            transport.send_close(picows.WSCloseCode.OK)
            transport.disconnect()

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        breach = _breach(transport)
        if breach:
            self._finish(ConnectionEnded(breach, "the peer broke the protocol"))
            # picows keeps it in a future, too, which complains loudly if nobody asks for it.
            asking = self._loop.create_task(transport.wait_disconnected())
            asking.add_done_callback(lambda task: None if task.cancelled() else task.exception())
        if self._end is None:
            self._finish(ConnectionEnded(1006, "connection lost"))
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
            raise self._end
        if self._transport is None:
            raise RuntimeError("send before the connection is open")
        self._transport.send(picows.WSMsgType.TEXT, message)

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
        self._queued -= len(message)
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
            raise self._end
        self._waiter = self._loop.create_future()
        self._arm(timeout)
        try:
            await self._waiter
        finally:
            self._waiter = None
        if not self._messages:
            raise self._end or ConnectionEnded(1006, "connection lost")

    def _flow(self) -> None:
        if self._paused and self._queued < MAX_QUEUED_BYTES // 2:
            self._paused = False
            if self._transport is not None and not self._transport.is_disconnected:
                self._transport.underlying_transport.resume_reading()

    def abort(self, reason: BaseException) -> None:
        """Wake the reader with ``reason`` (what was queued is dropped) and close."""
        self._messages.clear()
        self._queued = 0
        if self._end is None or isinstance(self._end, ConnectionEnded):
            self._end = reason
        self._wake()
        self.close()

    def close(self) -> None:
        """Say goodbye (1000) if there is still somebody, and let go of the socket without waiting for an answer."""
        if self._closed:
            return
        self._finish(ConnectionEnded(1000, "closed by us"))
        self._disarm()
        if self._transport is None:
            return
        self._closed = True
        transport = self._transport
        if not transport.is_disconnected:
            if self._paused:
                # A paused transport never sees the peer's end; nothing is read any more, so let it flow.
                self._paused = False
                transport.underlying_transport.resume_reading()
            if not transport.is_close_frame_sent:
                transport.send_close(picows.WSCloseCode.OK)
            transport.disconnect()

    @property
    def is_open(self) -> bool:
        """True while messages may still come."""
        return self._end is None

    def when_disconnected(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once the socket is gone."""
        self._on_disconnected = callback

    # -- inside ---------------------------------------------------------------------------------------------------

    def _break_off(self, transport: picows.WSTransport, code: int, reason: str) -> None:
        self._fragments.clear()
        self._finish(ConnectionEnded(code, reason))
        transport.disconnect(graceful=False)

    def _finish(self, end: BaseException) -> None:
        if self._end is None:
            self._end = end
            self._wake()

    def _wake(self) -> None:
        # Told once: what else the same reading brings need not look.
        waiter, self._waiter = self._waiter, None
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
    try:
        listener = await _open(_parsed(url), timeout, ssl_context, dialer)
    except TimeoutError:
        raise UpstreamTimeout("connect", timeout, retryable=True) from None
    except picows.WSInvalidStatusError as error:
        response = error.response
        status = int(response.status) if response is not None else None
        body = bytes(error.raw_body or b"")[:MAX_HANDSHAKE_BODY].decode("utf-8", "replace")
        raise UpstreamUnreachable(
            f"handshake refused with HTTP {status}: {_one_line(body)}",
            status=status,
            server_date=response.headers.get("Date") if response is not None else None,
            retryable=status is not None and status >= 500,
        ) from None
    except picows.WSError as error:
        raise UpstreamUnreachable(f"handshake failed: {type(error).__name__}", retryable=True) from None
    except ssl.SSLError as error:
        raise UpstreamUnreachable(f"TLS failed: {error.reason or type(error).__name__}", retryable=False) from None
    except OSError as error:
        raise UpstreamUnreachable(
            f"connection failed: {type(error).__name__} {error.errno or ''}".rstrip(), retryable=True
        ) from None
    # picows answers with no listener where the peer hung up before its handshake answer.
    if not isinstance(listener, WebSocketConnection):
        raise UpstreamUnreachable("the connection ended during the handshake", retryable=True)
    return listener


async def _open(
    place: picows.WSParsedURL, timeout: float, ssl_context: ssl.SSLContext | None, dialer: Dialer | None
) -> picows.WSListener | None:
    """Do what `picows.ws_connect` does, with picows' protocol and our own way to the peer.

    Around the protocol, that one looks for proxies and redirects, reads the address anew and builds a logger each time,
    which costs more than the protocol itself; and it lets go of nothing when it is cancelled. See
    ``docs/decisions/0024-dialing-by-ourselves.md``.
    """
    loop = asyncio.get_running_loop()
    protocol = WSProtocol(
        place.netloc,
        place.resource_name,
        True,  # a client
        _listener,
        _SILENCE,
        True,  # an exception in a listener ends the connection
        None,  # no time limit of its own
        False,  # no pings of ours
        None,
        None,
        picows.WSAutoPingStrategy.PING_WHEN_IDLE,
        True,  # pongs to theirs
        MAX_MESSAGE_BYTES,
        None,  # no header fields of ours
        READ_BUFFER_BYTES,
    )
    secure = (ssl_context or True) if place.is_secure else None
    try:
        with Deadline(loop, loop.time() + timeout):
            sock = None if dialer is None else await dialer.connect(place.host, place.port)
            # By uvloop's transports, not picows' own sockets: those wait by the loop's `add_reader`, and uvloop's gives
            # up on a socket that is reset while nothing is to be read (libuv reports EBADF and stops polling), so that
            # nobody would hear of the reset. And a chat of 50 frames costs a sixth less CPU over them.
            if sock is None:
                await loop.create_connection(lambda: protocol, place.host, place.port, ssl=secure)
            else:
                name = None if secure is None else place.host
                await loop.create_connection(lambda: protocol, sock=sock, ssl=secure, server_hostname=name)
            await protocol.wait_until_handshake_complete()
    except BaseException:
        if protocol.transport is not None:
            protocol.transport.disconnect(graceful=False)
        raise
    listener: picows.WSListener | None = protocol.listener
    return listener


@lru_cache(maxsize=64)
def _parsed(url: str) -> picows.WSParsedURL:
    # A signed address serves all connections of its second.
    return parse_url(url)


def _listener(_: picows.WSUpgradeRequest, __: picows.WSUpgradeResponse) -> WebSocketConnection:
    # With both arguments, since picows tries these first, and a TypeError costs.
    return WebSocketConnection()


def _number(close_code: object) -> int:
    """The close code as a number; picows has names for some only."""
    value = close_code.value if isinstance(close_code, Enum) else close_code
    return value if isinstance(value, int) else 1002


def _breach(transport: picows.WSTransport) -> int:
    """The close code with which picows answered a breach of the protocol; 0: it found none. We ourselves send 1000."""
    handshake = transport.close_handshake
    code = _number(handshake.sent.code) if handshake is not None and handshake.sent is not None else 1000
    return 0 if code == 1000 else code


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]
