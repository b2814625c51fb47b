"""One request and its response over HTTP/1, in the terms of ASGI.

The connection (`aiproject.adapters.http.http1`) parses the request and owns the socket; the exchange is what the
application calls. The head of a response is written together with the first bytes of its body, since every write is a
system call and a packet.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from aiproject.adapters.http.asgi import CHUNKS, HANG_UP, READER, RECEIVED, ASGIApp, Message, Scope

if TYPE_CHECKING:
    from aiproject.adapters.http.http1 import Http1Connection

__all__ = ["CONTINUE", "Exchange"]

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
"""The interim answer that clients skip wherever it comes (RFC 9110, section 15.2.1)."""

_BAD_NAME: Final = re.compile(rb'[\x00-\x20\x7f()<>@,;:\[\]={}\\"/?]')
_BAD_VALUE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

_log = logging.getLogger("uvicorn.error")  # the name under which uvicorn logs the faults of its own connections


def status_line(status: int) -> bytes:
    """Return the first line of an answer, with its end; without a phrase where the status has none."""
    try:
        phrase = HTTPStatus(status).phrase.encode()
    except ValueError:
        phrase = b""
    return b"HTTP/1.1 %d %b\r\n" % (status, phrase)


_SIZED: Final = 2048
_SIZE_LINES: Final = tuple(b"%x\r\n" % size for size in range(_SIZED))
"""The first lines of chunks; looked up, they take a third of the time that formatting takes."""

_STATUS_LINES: Final = {int(status): status_line(status) for status in HTTPStatus}


class Exchange:
    """A request, from its head to the end of its answer.

    Attributes:
        scope: the application's; its extensions lead back here until the answer is complete.
        knows_chunks: the client understands ``Transfer-Encoding: chunked`` (from HTTP/1.1 on).
        keep_alive: the connection may serve another request after this one.
        expects_continue: the client waits for leave to send the body.
        more_body: bytes of the request's body are still to come.
        disconnected: the client is gone; what is sent is dropped.
        response_started: the application has begun to answer.
        response_complete: the answer has been written to its end.
    """

    __slots__ = (
        "_behind_before",
        "_body",
        "_connection",
        "_has_news",
        "_head",
        "_is_chunked",
        "_left",
        "_news",
        "_task",
        "disconnected",
        "expects_continue",
        "keep_alive",
        "knows_chunks",
        "more_body",
        "response_complete",
        "response_started",
        "scope",
    )

    def __init__(
        self, connection: Http1Connection, scope: Scope, *, keep_alive: bool, knows_chunks: bool, expects_continue: bool
    ) -> None:
        self.scope = scope
        self.knows_chunks = knows_chunks
        self.keep_alive = keep_alive
        self.expects_continue = expects_continue
        self.more_body = True
        self.disconnected = False
        self.response_started = False
        self.response_complete = False
        self._connection = connection
        self._body: bytes | bytearray = b""
        self._has_news = False
        self._news: asyncio.Event | None = None
        self._head = b""  # of the answer, while it waits for the body's first bytes
        self._is_chunked = False
        self._left: int | None = None  # bytes of an announced length that are to come; `None`: no length
        self._task: asyncio.Task[None] | None = None
        self._behind_before = 0.0

    # -- the connection's calls ---------------------------------------------------------------------------------------

    def start(self, app: ASGIApp, tasks: set[asyncio.Task[None]]) -> None:
        """Run the application; its task is in ``tasks`` meanwhile."""
        self.scope["extensions"] = extensions = {
            HANG_UP: self.watch_hang_up,
            READER: self,
            RECEIVED: self.is_received,
        }
        if self.knows_chunks:
            extensions[CHUNKS] = self.write_chunks
        self._behind_before = self._connection.seconds_behind
        self._task = self._connection.loop.create_task(self._run(app, tasks))
        tasks.add(self._task)

    def receive_body(self, data: bytes) -> int:
        """Take bytes of the request's body; returns how many wait for the application."""
        if self._body:
            # A small body comes in one piece, which is passed on as it is; only a second one takes a buffer.
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += data
        else:
            self._body = data
        self._wake()
        return len(self._body)

    def end_body(self) -> None:
        """Say that the request is whole."""
        self.more_body = False
        self._wake()

    def disconnect(self) -> None:
        """Say that the client is gone, unless it has its answer."""
        if not self.response_complete:
            self.disconnected = True
        self._wake()

    def _wake(self) -> None:
        self._has_news = True
        # The event is made by the first `receive` that has to wait; most requests are whole before they are read.
        if self._news is not None:
            self._news.set()

    # -- running the application --------------------------------------------------------------------------------------

    async def _run(self, app: ASGIApp, tasks: set[asyncio.Task[None]]) -> None:
        try:
            await app(self.scope, self.receive, self.send)
        except BaseException as error:  # noqa: BLE001 - nobody awaits this task, so nobody else would report it
            _log.error("Exception in ASGI application", exc_info=error)
            await self._end_early()
        else:
            if not self.response_complete and not self.disconnected:
                _log.error("the application returned before its answer was complete")
                await self._end_early()
        finally:
            # Here and not in a callback of the task, which would take the event loop another turn.
            if self._task is not None:
                tasks.discard(self._task)
                self._task = None  # a reference cycle, which would wait for the garbage collector

    async def _end_early(self) -> None:
        """Answer for an application that failed, where it has not begun; else the connection's end says so."""
        if self.response_started:
            # A client that has seen a part can tell by the closed connection that the rest is missing.
            self._write_head()
            self._connection.transport.close()
            return
        body = b"Internal Server Error"
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        await self.send({"type": "http.response.start", "status": 500, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    # -- the application's calls --------------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """ASGI's ``receive``."""
        connection = self._connection
        if self.expects_continue:
            # Sent when the application asks for the body, so that one which refuses by the head spares the upload.
            self.expects_continue = False
            # A refused request is disconnected while its connection lingers, and nothing follows the refusal.
            if not self.disconnected and not connection.transport.is_closing():
                connection.transport.write(CONTINUE)
        if not self._has_news and not self.disconnected and not self.response_complete:
            # Paused when the body came faster than it was read, or behind a request that waits for its turn.
            connection.resume_reading()
            if self._news is None:
                self._news = asyncio.Event()
            await self._news.wait()
            self._news.clear()
        self._has_news = False
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        body, self._body = self._body, b""
        return {"type": "http.request", "body": bytes(body), "more_body": self.more_body}

    async def send(self, message: Message) -> None:
        """ASGI's ``send``.

        Raises:
            RuntimeError: the message is not one that may come now, or its headers or length are wrong.
        """
        connection = self._connection
        if connection.is_write_paused and not self.disconnected:
            await connection.drain()
        if self.disconnected:
            return  # ASGI leaves it to `receive` to report the end
        kind = message["type"]
        if not self.response_started:
            if kind != "http.response.start":
                raise RuntimeError(f"expected 'http.response.start', got '{kind}'")
            self.response_started = True
            self.expects_continue = False
            self._head = self._make_head(message["status"], message.get("headers", ()))
            # For an application that waits before it sends the body: its head must not wait with it.
            connection.loop.call_soon(self._write_head)
        elif self.response_complete:
            raise RuntimeError(f"unexpected '{kind}' after the end of the answer")
        elif kind != "http.response.body":
            raise RuntimeError(f"expected 'http.response.body', got '{kind}'")
        else:
            self._send_body(message.get("body", b""), is_last=not message.get("more_body", False))

    async def write_chunks(
        self, pieces: Sequence[bytes], before: bytes = b"", after: bytes = b"", *, is_last: bool = False
    ) -> None:
        """Send pieces of a chunked body, each as a chunk of its own; see `aiproject.adapters.http.asgi.CHUNKS`."""
        connection = self._connection
        if connection.is_write_paused and not self.disconnected:
            await connection.drain()
        if self.disconnected:
            return
        around = len(before) + len(after)
        end = after + b"\r\n"
        parts = [self._take_head()]
        for piece in pieces:
            size = len(piece) + around
            parts += (_SIZE_LINES[size] if size < _SIZED else b"%x\r\n" % size, before, piece, end)
        if is_last:
            parts.append(b"0\r\n\r\n")
        connection.transport.write(b"".join(parts))
        if is_last:
            self._complete()

    def watch_hang_up(self, callback: Callable[[], object] | None) -> None:
        """Have a hang-up reported; see `aiproject.adapters.http.asgi.HANG_UP`."""
        if callback is not None and self.disconnected:
            self._connection.loop.call_soon(callback)
        else:
            self._connection.on_hang_up = callback

    def is_received(self) -> bool:
        """Whether the request is whole; see `aiproject.adapters.http.asgi.RECEIVED`."""
        return not self.more_body

    # -- the client as a reader: `aiproject.adapters.http.asgi.Reader` ------------------------------------------------

    @property
    def is_behind(self) -> bool:
        """Nothing more can be written now."""
        return self._connection.is_write_paused

    @property
    def seconds_behind(self) -> float:
        """How long the answer has waited for its reader, in all."""
        return self._connection.seconds_behind - self._behind_before

    def cut(self) -> None:
        """Drop the connection."""
        self._connection.transport.abort()

    # -- the answer ---------------------------------------------------------------------------------------------------

    def _make_head(self, status: int, given: Iterable[tuple[bytes, bytes]]) -> bytes:
        headers = [*self._connection.server_state.default_headers, *given]
        # A line break in a value would let whoever chose it write header fields, or a body, of their own. All names and
        # all values are searched at once, which takes as long as searching one.
        if _BAD_NAME.search(b"".join([name for name, _ in headers])):
            raise RuntimeError("a header's name is none")
        if _BAD_VALUE.search(b"".join([value for _, value in headers])):
            raise RuntimeError("a header's value has control characters")
        lines = [_STATUS_LINES.get(status) or status_line(status)]
        says_close = says_connection = False
        for raw_name, value in headers:
            name = raw_name.lower()
            # A transfer coding overrides a length (RFC 9112, section 6.3).
            if name == b"content-length" and not self._is_chunked:
                self._left = int(value)
            elif name == b"transfer-encoding" and value.lower() == b"chunked":
                self._is_chunked, self._left = True, None
            elif name == b"connection":
                says_connection = True
                says_close = says_close or b"close" in [token.strip() for token in value.lower().split(b",")]
            lines.append(b"%b: %b\r\n" % (name, value))
        has_body = self.scope["method"] != "HEAD" and status not in (204, 304)
        if not has_body:
            # The length that is announced is the one that another method or status would have.
            self._is_chunked, self._left = False, 0
        elif self._left is None and not self._is_chunked:
            self._is_chunked = self.knows_chunks
            if self.knows_chunks:
                lines.append(b"transfer-encoding: chunked\r\n")
            else:
                self.keep_alive = False  # the end of such a body is the end of the connection
        self.keep_alive = self.keep_alive and not says_close
        if not self.keep_alive and not says_close:
            lines.append(b"connection: close\r\n")
        elif self.keep_alive and not self.knows_chunks and not says_connection:
            # HTTP/1.0 closes unless both sides say otherwise.
            lines.append(b"connection: keep-alive\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def _take_head(self) -> bytes:
        head, self._head = self._head, b""
        return head

    def _write_head(self) -> None:
        # Nothing is left where the body has followed in the meantime.
        if self._head and not self.disconnected:
            self._connection.transport.write(self._take_head())

    def _send_body(self, body: bytes, *, is_last: bool) -> None:
        connection = self._connection
        if self.scope["method"] == "HEAD":
            data = b""
        elif self._is_chunked:
            data = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if is_last:
                data += b"0\r\n\r\n"
        else:
            data = body
            if self._left is not None:
                self._left -= len(body)
                # A client would take the difference for a part of the next response, or wait for it.
                if self._left < 0 or (is_last and self._left):
                    raise RuntimeError("the body is not as long as its content-length says")
        if self._head:
            data = self._take_head() + data
        if data:
            connection.transport.write(data)
        if is_last:
            self._complete()

    def _complete(self) -> None:
        connection = self._connection
        self.response_complete = True
        self._wake()
        # A reference cycle: from the scope through its extensions to this exchange and back. It would keep some twenty
        # objects of every request until garbage is collected, which took three hundredths of a call's CPU.
        self.scope["extensions"].clear()
        if not self.keep_alive:
            connection.transport.close()
        connection.on_response_complete()
