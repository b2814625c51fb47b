"""Outgoing websocket connections: the core of `aiproject.protocols.websocket` on the event loop's transports.

Messages are received whole, with a time limit on each wait; the sender is held back while the reader is behind. No
extension is offered, no redirect is followed, no proxy is used.

Each chat takes a connection of its own, so that the cost of one decides the cost of a chat; that is why it is our own
code and no library's, see ``docs/decisions/0024-own-websocket-client.md``.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Final, cast

from aiproject.adapters.net.deadline import Deadline
from aiproject.adapters.net.dialer import Dialer, read_pending
from aiproject.errors import UpstreamProtocolViolation, UpstreamTimeout, UpstreamUnreachable
from aiproject.protocols.iflytek.error_codes import quote as quote_vendor
from aiproject.protocols.websocket.frames import CLOSE, PONG, TEXT, FrameReader, ProtocolViolation, encode_frame
from aiproject.protocols.websocket.handshake import (
    MAX_HANDSHAKE_BODY,
    ClientHandshake,
    HandshakeState,
    parse_address,
)

__all__ = ["ConnectionEnded", "WebSocketConnection", "connect"]

MAX_QUEUED_BYTES: Final = 256 * 1024
"""Unread bytes at which reading from the socket pauses: about a thousand chat frames of 250 bytes. The bytes of one
read are kept whole, so that up to the system's receive buffer (some megabytes) may come on top."""


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
        self._handshake: ClientHandshake | None = None
        self._opening: asyncio.Future[None] | None = loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader()
        self._paused = False
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
        self._handshake = ClientHandshake(_random(16))
        self._transport.write(self._request + self._handshake.key + b"\r\n\r\n")

    def data_received(self, data: bytes) -> None:
        if self._end is not None:
            return  # the peer may send until it learns that we closed
        if self._opening is not None:
            self._read_handshake(data)
        else:
            self._read_frames(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._opening is not None and not self._opening.done():
            failure = self.refusal() or (exc if isinstance(exc, OSError) else None)
            self._opening.set_exception(
                failure or UpstreamUnreachable("the connection ended during the handshake", retryable=True)
            )
        self._finish((1006, "connection lost"))
        self._disarm()
        # Whoever waits in `drain` learns of the end by its next `send`.
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

    # -- the public methods ---------------------------------------------------------------------------------------

    def send(self, message: bytes) -> None:
        """Send one text message; `drain` afterwards where many are sent.

        Raises:
            ConnectionEnded: the connection is gone.
        """
        if self._end is not None:
            raise self._ending()
        if self._transport is None:
            raise RuntimeError("send before the connection is open")
        self._transport.write(encode_frame(TEXT, message, _random(4)))

    async def check_silence(self) -> None:
        """Check that the peer has sent nothing yet; for protocols in which it only answers, before the first `send`.

        What came with the handshake, while the connection waited, or just now answers no question of ours. Pings and
        pongs are no messages (RFC 6455, section 5.5) and may come at any time. A closed connection passes the check:
        `send` raises.

        Raises:
            UpstreamProtocolViolation: it has begun a message; the connection is closed. Another one may serve.
        """
        if self._transport is not None:
            await read_pending(self._transport)
        if self.has_spoken:
            self._break_off(1002, "spoke before it was asked")
            raise UpstreamProtocolViolation("spoke before it was asked", retryable=True)

    async def drain(self) -> None:
        """Wait until the socket takes more; returns at once most of the time."""
        if self._writable is not None:
            # Shielded, because others may wait for the same future.
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
        if not self._reader.messages:
            await self._wait(timeout)
        message = self._reader.take()
        self._flow()
        return message

    async def receive_all(self, timeout: float) -> deque[bytes]:
        """Return the messages that are here, at least one; waits and raises as `receive` does."""
        if not self._reader.messages:
            await self._wait(timeout)
        messages = self._reader.take_all()
        self._flow()
        return messages

    async def _wait(self, timeout: float) -> None:
        if self._end is not None:
            raise self._ending()
        # A future and a shared timer instead of `asyncio.wait_for`, which makes a timer for every wait.
        self._waiter = self._loop.create_future()
        self._arm(timeout)
        try:
            await self._waiter
        finally:
            self._waiter = None
        # Woken without a message: the connection has ended. With one, the message comes first, and the end at the next
        # wait.
        if not self._reader.messages:
            raise self._ending()

    def _flow(self) -> None:
        # Half of what made it pause, so that a reader which takes message by message does not make it pause each time.
        if self._paused and self._reader.size < MAX_QUEUED_BYTES // 2:
            self._paused = False
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    def abort(self, reason: BaseException) -> None:
        """Wake the reader with ``reason`` (what was queued is dropped) and close."""
        self._reader.clear()
        if not isinstance(self._end, BaseException):  # the first reason counts, and an end by itself is none
            self._end = reason
        self._wake()
        self.close()

    def close(self) -> None:
        """Send a close frame (1000) if the peer is there, and close the socket without waiting for its own.

        A peer that does not answer would hold the connection, and with it the call, for as long as we wait.
        """
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
        return self._reader.has_begun

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
        """Drop a connection that was not opened; for `connect`."""
        if self._opening is not None and not self._opening.cancel() and not self._opening.cancelled():
            self._opening.exception()  # retrieved, or asyncio would log it as never retrieved
        self._break_off(1006, "never open")

    def refusal(self) -> UpstreamUnreachable | None:
        """The peer's refusal, once its head is here; its body may be cut off."""
        handshake = self._handshake
        if handshake is None or handshake.answer is None:
            return None
        answer = handshake.answer
        body = bytes(handshake.rest[:MAX_HANDSHAKE_BODY]).decode("utf-8", "replace")
        return UpstreamUnreachable(
            f"handshake refused with HTTP {answer.status}: {quote_vendor(body)}",
            status=answer.status,
            server_date=answer.field(b"date").decode("latin-1") or None,
            retryable=answer.status >= 500,
        )

    def _read_handshake(self, data: bytes) -> None:
        handshake = self._handshake
        if handshake is None:
            raise RuntimeError("data before the connection was made")
        try:
            state = handshake.receive(data)
        except ProtocolViolation as violation:
            self._fail(UpstreamUnreachable(f"handshake failed: {violation.reason}", retryable=True))
            return
        if state is HandshakeState.REFUSED:
            self._fail(self.refusal() or ConnectionResetError())
        elif state is HandshakeState.ACCEPTED:
            opening, self._opening = self._opening, None
            if opening is not None and not opening.done():
                opening.set_result(None)
            if handshake.rest:
                self._read_frames(bytes(handshake.rest))

    def _fail(self, failure: BaseException) -> None:
        if self._opening is not None and not self._opening.done():
            self._opening.set_exception(failure)
        self._break_off(1006, "never open")

    # -- frames -------------------------------------------------------------------------------------------------------

    def _read_frames(self, data: bytes) -> None:
        reader = self._reader
        try:
            reader.receive(data)
        except ProtocolViolation as violation:
            self._break_off(violation.code, violation.reason)
            return
        if reader.pings:
            self._answer_pings()
        if reader.close is not None:
            self._finish(reader.close)
            self._hang_up(1000)
            return
        if reader.messages:
            self._wake()
        if reader.size > MAX_QUEUED_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _answer_pings(self) -> None:
        for payload in self._reader.pings:
            # A peer that sends pings and reads no pongs would fill our memory with them.
            if self._writable is None and self._transport is not None:
                self._transport.write(encode_frame(PONG, payload, _random(4)))
        self._reader.pings.clear()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _ending(self) -> BaseException:
        end = self._end or (1006, "connection lost")
        return end if isinstance(end, BaseException) else ConnectionEnded(*end)

    def _break_off(self, code: int, reason: str) -> None:
        # Whole messages that came before the fault can still be received.
        self._reader.forget_parts()
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
            # A paused transport would never notice that the peer closes; what it reads from now on is dropped.
            self._paused = False
            transport.resume_reading()
        transport.write(encode_frame(CLOSE, code.to_bytes(2, "big"), _random(4)))
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
        # One timer serves many waits, so that a frame costs none: it is set anew only when it fires too early or when a
        # wait ends before it does.
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
        # The loop's timers have a resolution of a millisecond and may fire that much too early.
        if self._loop.time() + 0.001 >= self._deadline:
            waiter.set_exception(TimeoutError())
        else:
            self._timer_due = self._deadline
            self._timer = self._loop.call_at(self._deadline, self._tick)


async def connect(
    url: str, *, timeout: float, ssl_context: ssl.SSLContext | None, dialer: Dialer | None = None
) -> WebSocketConnection:
    """Open a connection: DNS, TCP, TLS and handshake within ``timeout`` seconds. A redirect is a refusal.

    Args:
        dialer: resolves names and races their addresses; ``None``: the event loop resolves for each connection.

    Raises:
        UpstreamTimeout: with phase ``connect``.
        UpstreamUnreachable: refused, reset, no such host, bad certificate, or an HTTP answer other than 101; never
            quotes the address, since a signed one holds a signature.
    """
    loop = asyncio.get_running_loop()
    address = parse_address(url)
    connection = WebSocketConnection(loop, address.request)
    sock: socket.socket | None = None
    is_open = False
    try:
        with Deadline(loop, loop.time() + timeout):
            if dialer is not None:
                sock = await dialer.connect(address.host, address.port)
            tls = (ssl_context or ssl.create_default_context()) if address.is_secure else None
            if sock is None:
                await loop.create_connection(lambda: connection, address.host, address.port, ssl=tls)
            else:
                await loop.create_connection(
                    lambda: connection, sock=sock, ssl=tls, server_hostname=address.host if tls else None
                )
            await connection.opened()
        is_open = True
    except TimeoutError:
        # A gateway may refuse and then keep the connection open: its reason says more than the timeout.
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


_entropy = bytearray()


def _random(count: int) -> bytes:
    """Return ``count`` bytes of the system's randomness, each of them once.

    They are fetched by the page: the system call releases the interpreter lock, and waiting to get it back from another
    thread costs a chat more than all its masking.
    """
    if len(_entropy) < count:
        _entropy[:] = os.urandom(4096)
    taken = bytes(_entropy[-count:])
    del _entropy[-count:]
    return taken


# A forked process would otherwise use the same bytes as its parent.
os.register_at_fork(after_in_child=_entropy.clear)
