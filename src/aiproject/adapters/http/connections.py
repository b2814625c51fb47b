"""Clients' connections: what a request may take in bytes and time before the application sees it.

The parser bounds none of it: a head may come byte by byte without end, a header's value may be as long as memory lasts,
and bytes beside a body (chunk extensions, trailers) are not counted. What is refused here is answered in the dialect of
its address like every other fault, and the connection is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote

from uvicorn.config import Config
from uvicorn.server import ServerState

from aiproject.adapters.http.connection_counts import ConnectionCounts, ConnectionSlot, Entry
from aiproject.adapters.http.errors import error_answer
from aiproject.adapters.http.http1 import Http1Connection
from aiproject.adapters.http.languages import accept_language_of
from aiproject.errors import AiProjectError, BodyTooSlow, HttpFault, TooManyRequests, Unavailable
from aiproject.protocols.dialects import Dialects, FailedRequest
from aiproject.protocols.websocket.frames import MAX_MESSAGE_BYTES

__all__ = ["GuardedConnection", "connection_limit", "guarded", "websocket_options"]

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

RETRY_AFTER: Final = 5
"""Seconds after which a client whose connection is one too many may try again."""

LINGER: Final = 2.0
"""Seconds for a refused client to read why. Closing on bytes that were not read makes its system forget our answer."""

RESERVED_DESCRIPTORS: Final = 64
"""Open files beside clients' and upstream's connections: database, log, event loop, libraries."""


def guarded(
    *,
    head_timeout: float,
    counts: ConnectionCounts,
    reader_timeout: float,
    dialects: Dialects,
    websocket_paths: frozenset[str] = frozenset(),
) -> Callable[..., GuardedConnection]:
    """Return what makes uvicorn's connections.

    Args:
        head_timeout: seconds within which a request's head must be whole, from its first byte on; also how long a
            fresh connection may say nothing.
        counts: admits connections; clients over its limits get 503, those over the limit of their address 429.
        reader_timeout: seconds after which a client that takes nothing of its answer is cut off.
        dialects: the form of refusals, by the address where it was read, else that of the path ``/``.
        websocket_paths: where the application accepts websockets; elsewhere an offer of one is answered as if it had
            not been made.
    """
    return partial(
        GuardedConnection,
        head_timeout=head_timeout,
        counts=counts,
        reader_timeout=reader_timeout,
        dialects=dialects,
        websocket_paths=websocket_paths,
    )


def websocket_options(paths: frozenset[str]) -> dict[str, Any]:
    """Return what uvicorn's configuration says of websockets on these paths; its protocol is loaded for them only.

    Messages are as long as the platform's own may be, and nothing is compressed: a compressed message of some kilobytes
    would be read into as many megabytes.
    """
    if not paths:
        return {"ws": "none"}
    return {"ws": "websockets-sansio", "ws_max_size": MAX_MESSAGE_BYTES, "ws_per_message_deflate": False}


def connection_limit(wanted: int) -> int:
    """Return how many connections this process can hold: ``wanted``, or what the system's limit of open files allows.

    The soft limit is raised to the hard one. Each client may need a second file for its call upstream.
    """
    # Two files for each connection, or a full server could accept calls and not make them.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS calls its limit infinite and refuses that
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, (soft - RESERVED_DESCRIPTORS) // 2))


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
        dialects: Dialects,
        websocket_paths: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.websocket_paths = websocket_paths
        self._reader_timeout = reader_timeout
        self._dialects = dialects
        self._reader_timer: asyncio.TimerHandle | None = None
        self._unread = 0
        self._head_timeout = head_timeout
        self._counts = counts
        self._slot: ConnectionSlot | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._beside_body = 0
        self._body = 0
        self._body_in_piece = 0
        self._since_body = 0
        self._unparsed = b""
        self._is_eof_to_come = False
        self._refusal: AiProjectError = HttpFault(HTTPStatus.BAD_REQUEST)
        self._is_refused = False

    # -- the transport's calls ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as the base class
        super().connection_made(transport)
        self._slot = self._counts.enter(self.client[0] if self.client else None)
        match self._slot.entry:
            case Entry.ADMITTED:
                self._await_head()
            case Entry.TOO_MANY:
                self._refuse(Unavailable("too many connections", retry_after=RETRY_AFTER))
            case Entry.TOO_MANY_OF_ADDRESS:
                self._refuse(TooManyRequests(RETRY_AFTER))
            case Entry.DROPPED:
                self._is_refused = True
                self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._slot is not None:
            self._slot.release()
        self._stop_timer()
        self._stop_waiting_for_reader()
        super().connection_lost(exc)
        self._stop_waiting_for_reader()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        self._stop_waiting_for_reader()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        # The usual request is one small read.
        if len(data) <= MAX_PIECE and not self.pipeline:
            self._receive(data)
            return
        view = memoryview(data)
        for start in range(0, len(view), MAX_PIECE):
            if self.pipeline:
                # Parsed once its turn comes: as bytes they take a thirtieth of the memory of requests.
                self._unparsed += view[start:]
                self.pause_reading()
                return
            self._receive(bytes(view[start : start + MAX_PIECE]))

    def eof_received(self) -> bool:
        # The end of what is sent belongs behind the bytes that are not parsed yet.
        self._is_eof_to_come = bool(self._unparsed)
        return self._is_eof_to_come or super().eof_received()

    def on_response_complete(self) -> None:
        """Called when an answer has ended: the next request begins, and what came behind it is parsed."""
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
        if self._is_refused or self.is_upgraded or self.transport.is_closing():
            return
        self._beside_body += len(data) - self._body_in_piece
        self._since_body = 0 if self._body_in_piece else self._since_body + len(data)
        # The first comparison is false for any small request, whose body cannot allow for more.
        if self._beside_body > MAX_BESIDE_BODY and self._is_too_much_beside_body():
            if self.is_in_head:
                self._refuse(HttpFault(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
            else:
                self._refuse(HttpFault(HTTPStatus.BAD_REQUEST))
        elif self._head_timer is None and (self.exchange is None or self.exchange.response_complete):
            # The limit on idle connections ends with the next byte, be it of a head, a blank line or a body that was
            # answered before its end.
            self._await_head()

    def _is_too_much_beside_body(self) -> bool:
        in_all = MAX_BESIDE_BODY + BESIDE_EACH_BODY_BYTE * self._body
        return self._beside_body > in_all or self._since_body > MAX_BESIDE_BODY

    def forget(self) -> None:
        self._stop_timer()
        super().forget()

    # -- the parser's calls -------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._beside_body = self._body = self._since_body = 0

    def on_headers_complete(self) -> None:
        self._stop_timer()
        if self.head_bytes + len(self.url) > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            self.is_in_head = False
            self._refusal = HttpFault(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            raise ValueError("the head is too large")  # ends the parsing; reported by `refuse_request`
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        self._body_in_piece += len(body)
        super().on_body(body)

    # -- readers that are behind --------------------------------------------------------------------------------------

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

    def refuse_request(self) -> None:
        """Answer bytes that are no HTTP, or a head that is too large."""
        self._refuse(self._refusal)

    def _refuse(self, error: AiProjectError) -> None:
        self._is_refused = True
        self._stop_timer()
        if self._is_answering():
            self.transport.close()  # words in the midst of an answer would be taken for a part of it
            return
        if self.exchange is not None:
            # A call whose body broke off: its endpoint learns that the client is gone, which is what it amounts to.
            self.exchange.disconnect()
        self.transport.write(self._rendered(error))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.resume_reading()
        self._head_timer = self.loop.call_later(LINGER, self.transport.close)

    def _rendered(self, error: AiProjectError) -> bytes:
        """Return the whole answer, in the dialect of the address, as far as the head was read."""
        path = unquote(self.url.partition(b"?")[0].decode("latin-1")) or "/"
        answer = error_answer(self._dialects, error, FailedRequest(path, accept_language_of(self.headers)))
        status = HTTPStatus(answer.status)
        headers = [
            *self.server_state.default_headers,
            (b"content-type", answer.content_type),
            (b"content-length", b"%d" % len(answer.body)),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            *(field for field in answer.headers if field[0] != b"connection"),
            (b"connection", b"close"),
        ]
        lines = [b"HTTP/1.1 %d %b" % (status, status.phrase.encode()), *(b"%b: %b" % field for field in headers)]
        return b"\r\n".join(lines) + b"\r\n\r\n" + answer.body

    def _is_answering(self) -> bool:
        """Whether an answer is under way, be it of a request before the one that is being read."""
        exchange = self.exchange
        is_begun = exchange is not None and exchange.response_started and not exchange.response_complete
        return is_begun or bool(self.pipeline)

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self._head_timeout, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing() or (self.exchange is not None and not self.exchange.response_complete):
            return
        if self._beside_body and self.is_in_head:
            self._refuse(BodyTooSlow())
        else:
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
