"""Clients' connections: what a request may take in bytes and time before the application sees it.

uvicorn's connection over httptools bounds none of it: a head may come byte by byte for ever, a header's value may be as
long as memory lasts, and bytes beside a body (chunk extensions, trailers) are not counted. What is refused here is told
in the shape of every other fault, and the connection is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from aiproject.adapters.http.asgi import CHUNKS, HANG_UP, READER
from aiproject.adapters.http.connection_counts import ConnectionCounts, Entry, Place
from aiproject.adapters.http.http1 import Http1Connection, knows_chunks
from aiproject.codes import Code
from aiproject.messages import Language, format_message
from aiproject.protocols.legacy import json_bytes

__all__ = ["GuardedConnection", "connection_limit", "guarded"]

MAX_HEAD_BYTES: Final = 32 * 1024
"""Bytes of a request line and its headers; the four times 8 KiB of common proxies."""

MAX_HEADERS: Final = 100
"""Headers of a request; a browser behind two proxies sends about thirty."""

MAX_BESIDE_BODY: Final = 64 * 1024
"""Bytes of one request that are not body: its head and, where it comes in chunks, sizes, extensions and trailers. As
many may come in a row: the parser keeps a trailer in memory until it is whole."""

BESIDE_EACH_BODY_BYTE: Final = 16
"""What a body in the smallest chunks may add to that: a chunk of one byte has five more on the wire."""

MAX_PIECE: Final = 4 * 1024
"""Bytes of a reading that are parsed at once. Those behind them wait while a request waits for its turn, so that some
hundred requests of one reading become objects at most; they would take thirty times the memory of their bytes."""

LINGER: Final = 2.0
"""Seconds for a refused client to read why. Closing on bytes that were not read makes its system forget our answer."""

RESERVED_DESCRIPTORS: Final = 64
"""Open files beside clients' and upstream's connections: database, log, event loop, libraries."""


def guarded(
    *, head_timeout: float, counts: ConnectionCounts, reader_timeout: float
) -> Callable[..., GuardedConnection]:
    """Return what makes uvicorn's connections.

    Args:
        head_timeout: seconds within which a request's head must be whole, from its first byte on; also how long a
            fresh connection may say nothing.
        counts: lets connections in; clients over its limits are told 503, those over the limit of their address 429.
        reader_timeout: seconds after which a client that takes nothing of its answer is cut off.
    """
    return partial(
        GuardedConnection,
        head_timeout=head_timeout,
        counts=counts,
        reader_timeout=reader_timeout,
    )


def connection_limit(wanted: int) -> int:
    """Return how many connections this process can hold: ``wanted``, or what the system's limit of open files allows.

    The soft limit is raised to the hard one. Each client may need a second file for its call upstream.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS calls its limit infinite and refuses that
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, (soft - RESERVED_DESCRIPTORS) // 2))


async def _write_chunks(cycle: RequestResponseCycle, pieces: Sequence[bytes]) -> None:
    """See `aiproject.adapters.http.asgi.CHUNKS`."""
    if cycle.flow.write_paused and not cycle.disconnected:
        await cycle.flow.drain()
    if not cycle.disconnected:
        cycle.transport.write(b"".join([b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]))


class _Reader:
    """The client that takes an answer; implements `aiproject.adapters.http.asgi.Reader`."""

    __slots__ = ("_behind", "_cut", "_loop", "_since")

    def __init__(self, loop: asyncio.AbstractEventLoop, cut: Callable[[], None], *, is_behind: bool) -> None:
        self._loop = loop
        self._cut = cut
        self._behind = 0.0
        self._since = loop.time() if is_behind else None

    @property
    def is_behind(self) -> bool:
        return self._since is not None

    @property
    def seconds_behind(self) -> float:
        return self._behind + (0.0 if self._since is None else self._loop.time() - self._since)

    def cut(self) -> None:
        self._cut()

    def fell_behind(self) -> None:
        self._since = self._loop.time()

    def caught_up(self) -> None:
        self._behind, self._since = self.seconds_behind, None


class GuardedConnection(Http1Connection):
    """A client's connection with bounds; see `guarded`."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        head_timeout: float,
        counts: ConnectionCounts,
        reader_timeout: float,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._reader_timeout = reader_timeout
        self._reader_timer: asyncio.TimerHandle | None = None
        self._unread = 0
        self._reader: _Reader | None = None
        self._on_hang_up: Callable[[], object] | None = None
        self._extensions: dict[str, Any] = {}
        self._head_timeout = head_timeout
        self._counts = counts
        self._place: Place | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._is_in_head = True
        self._beside_body = 0
        self._body = 0
        self._body_in_piece = 0
        self._since_body = 0
        self._unparsed = b""
        self._is_eof_to_come = False
        self._refusal = (HTTPStatus.BAD_REQUEST, Code.APP_QUERY_METHOD_ERROR)
        self._is_refused = False

    # -- the transport's calls ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn does
        super().connection_made(transport)
        self._place = self._counts.enter(self.client[0] if self.client else None)
        match self._place.entry:
            case Entry.ADMITTED:
                self._await_head()
            case Entry.TOO_MANY:
                self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, Code.SERVICE_UNAVAILABLE)
            case Entry.TOO_MANY_OF_ADDRESS:
                self._refuse(HTTPStatus.TOO_MANY_REQUESTS, Code.TOO_MANY_REQUESTS)
            case Entry.NOT_TOLD:
                self._is_refused = True
                self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._place is not None:
            self._place.leave()
        self._stop_timer()
        super().connection_lost(exc)
        self._stop_waiting_for_reader()
        on_hang_up, self._on_hang_up = self._on_hang_up, None
        if on_hang_up is not None:
            on_hang_up()

    def pause_writing(self) -> None:
        """Called when the client is behind: nothing more is written until it has caught up."""
        super().pause_writing()
        if self._reader is not None:
            self._reader.fell_behind()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        """Called when it has."""
        self._stop_waiting_for_reader()
        if self._reader is not None:
            self._reader.caught_up()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if len(data) <= MAX_PIECE and not self.pipeline:
            self._receive(data)
            return
        view = memoryview(data)
        for start in range(0, len(view), MAX_PIECE):
            if self.pipeline:
                self._unparsed += view[start:]
                self.flow.pause_reading()
                return
            self._receive(bytes(view[start : start + MAX_PIECE]))

    def eof_received(self) -> bool:  # type: ignore[override] # see the base class
        self._is_eof_to_come = bool(self._unparsed)
        return self._is_eof_to_come or super().eof_received()

    def on_response_complete(self) -> None:
        """Called when an answer has ended: the next request begins, and what came behind it is parsed."""
        self._forget_extensions()
        super().on_response_complete()
        if self._unparsed and not self.pipeline and not self.transport.is_closing():
            data, self._unparsed = self._unparsed, b""
            self.data_received(data)
            if self._is_eof_to_come and not self.eof_received():
                self.transport.close()

    def _receive(self, data: bytes) -> None:
        """Parse a piece of what was received, and count it."""
        if self._is_refused or self.transport.is_closing():
            return
        self._body_in_piece = 0
        super().data_received(data)
        if self._is_refused or self.transport.is_closing():
            return
        self._beside_body += len(data) - self._body_in_piece
        self._since_body = 0 if self._body_in_piece else self._since_body + len(data)
        if self._is_too_much_beside_body():
            if self._is_in_head:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, Code.APP_QUERY_METHOD_ERROR)
            else:
                self._refuse(HTTPStatus.BAD_REQUEST, Code.APP_QUERY_METHOD_ERROR)
        elif self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            # uvicorn's limit on idle connections ends with the next byte, be it of a head, a blank line or a body that
            # was answered before its end.
            self._await_head()

    def _is_too_much_beside_body(self) -> bool:
        in_all = MAX_BESIDE_BODY + BESIDE_EACH_BODY_BYTE * self._body
        return self._beside_body > in_all or self._since_body > MAX_BESIDE_BODY

    # -- the parser's calls -------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = True
        self._beside_body = self._body = self._since_body = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        # After the head these are a chunked body's trailers. The application has its headers by then; more of them
        # must not appear there, least of all a caller's name.
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._stop_timer()
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            self._refusal = (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, Code.APP_QUERY_METHOD_ERROR)
            raise ValueError("the head is too large")  # ends the parsing; told by `send_400_response`
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        self._body_in_piece += len(body)
        super().on_body(body)

    # -- for the application ------------------------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._reader = _Reader(self.loop, self.transport.abort, is_behind=self.flow.write_paused)
        extensions: dict[str, Any] = {HANG_UP: partial(self._watch_hang_up, cycle), READER: self._reader}
        if knows_chunks(cycle.scope):
            extensions[CHUNKS] = partial(_write_chunks, cycle)
        cycle.scope["extensions"] = self._extensions = extensions
        super()._start_asgi_task(cycle, app)

    def _forget_extensions(self) -> None:
        """Break the reference cycle of a request, which leads from its scope through these back to its scope.

        Some twenty objects a request would stay until garbage is collected, and the search for them would take three
        hundredths of a call's time.
        """
        self._extensions.clear()

    def _watch_hang_up(self, cycle: RequestResponseCycle, callback: Callable[[], object] | None) -> None:
        if callback is not None and cycle.disconnected:
            self.loop.call_soon(callback)
        else:
            self._on_hang_up = callback

    def _wait_for_reader(self) -> None:
        self._unread = self.transport.get_write_buffer_size()
        self._reader_timer = self.loop.call_later(self._reader_timeout, self._reader_is_late)

    def _stop_waiting_for_reader(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None

    def _reader_is_late(self) -> None:
        if self.transport.get_write_buffer_size() < self._unread:
            self._wait_for_reader()  # slow, but it reads
        else:
            self._reader_timer = None
            self.transport.abort()  # its call learns that the client is gone, and is charged as such

    # -- refusals -----------------------------------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        """Tell a client whose bytes are no HTTP, in JSON."""
        self._refuse(*self._refusal)

    def _refuse(self, status: HTTPStatus, code: Code) -> None:
        self._is_refused = True
        self._stop_timer()
        if self._is_answering():
            self.transport.close()  # words in the midst of an answer would be taken for a part of it
            return
        if self.cycle is not None and not self.cycle.response_complete:
            # A call whose body broke off: its endpoint learns that the client is gone, which is what it amounts to.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = json_bytes({"code": str(code), "msg": format_message(code, Language.ZH)})
        lines = [
            b"HTTP/1.1 %d %b" % (status, status.phrase.encode()),
            *(name + b": " + value for name, value in self.server_state.default_headers),
            b"content-type: application/json",
            b"content-length: %d" % len(body),
            b"cache-control: no-store",
            b"x-content-type-options: nosniff",
            b"connection: close",
        ]
        if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
            lines.append(b"retry-after: 5")
        self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._head_timer = self.loop.call_later(LINGER, self.transport.close)

    def _is_answering(self) -> bool:
        """Whether an answer is under way, be it of a request before the one that is being read."""
        cycle = self.cycle
        return bool(self.pipeline) or (cycle is not None and cycle.response_started and not cycle.response_complete)

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self._head_timeout, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing() or (self.cycle is not None and not self.cycle.response_complete):
            return
        if self._beside_body and self._is_in_head:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, Code.REQUEST_TIMEOUT)
        else:
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
