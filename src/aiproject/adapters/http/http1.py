"""HTTP/1.0 and HTTP/1.1 by RFC 9110 and RFC 9112 over httptools, as a connection of uvicorn's server.

uvicorn's own connection is not used: it departs from the RFCs in points that matter here, and what it has to be asked
for (chunks in one write, hang-ups, readers that are behind) would depend on its private methods. Of uvicorn are used
its server, with its shared state, and its configuration, see `aiproject.adapters.http.server_version`.

- An offer to upgrade (``Upgrade``) that is not taken leaves the request as it is: its body is read, and the answer is
  HTTP/1.1 (RFC 9110, section 7.8).
- ``Host`` comes exactly once in HTTP/1.1, at most once in HTTP/1.0, and is a host (RFC 9112, section 3.2).
- A transfer coding is ``chunked``, once, at most around a compression, which is refused later (RFC 9112, section 6.1).
- Answers to HTTP/1.0 have a length or end with the connection; they never come in chunks (RFC 9112, section 6.1).
- A client that has closed its sending side only still gets its answer (RFC 9112, section 9.6).
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from aiproject.adapters.http.exchange import Exchange
from aiproject.adapters.http.half_closed import HalfClosedWatch
from aiproject.adapters.http.upgraded import UpgradedConnection

__all__ = ["Http1Connection"]

MAX_UNREAD_BODY: Final = 64 * 1024
"""Bytes of a request's body that wait for the application before reading pauses."""

HTTP_1_0_HALF_CLOSE: Final = 0.5
"""Seconds after the end of a request within which an HTTP/1.0 client may close its sending side and still get its
answer. Such clients cannot be asked whether they are there, so a later close is taken for a hang-up."""

_NAME: Final = rb"[A-Za-z0-9._~!$&'()*+,;=-]*(?:%[0-9A-Fa-f]{2}[A-Za-z0-9._~!$&'()*+,;=-]*)*"
_HOST: Final = re.compile(rb"(?:" + _NAME + rb"|\[[0-9A-Fa-fvV:.]+\])(?::[0-9]*)?")
"""``Host = uri-host [ ":" port ]`` (RFC 9110, section 7.2; RFC 3986, section 3.2.2). The host may be empty."""

_CODING: Final = re.compile(rb"(?:(?:(?:x-)?(?:gzip|compress)|deflate|br|zstd)[ \t]*,[ \t]*)?chunked")
"""``chunked``, alone or around one compression (RFC 9112, section 7)."""

_PLAIN_PATH: Final = re.compile(rb"/[A-Za-z0-9/_.-]*")
"""A target that is its own path: nothing to decode, no query. Two slashes would be read as a host's beginning."""

_log = logging.getLogger("uvicorn.error")


class Http1Connection(asyncio.Protocol):
    """A client's connection.

    Attributes:
        exchange: the request whose head came last; ``None`` before the first.
        pipeline: requests that wait until those before them are answered, the next at the right.
        is_in_head: the head of a request is awaited, or has come in part.
        head_bytes: of the headers that have come.
        is_write_paused: the client is behind; nothing more is to be written.
        websocket_paths: where offers of a websocket are taken.
        is_upgraded: a websocket has taken the connection over.
        on_hang_up: called once when the client hangs up.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        # The server makes a connection with the arguments of uvicorn's own.
        if not config.loaded:
            config.load()
        self.config = config
        self.app = config.loaded_app
        self.loop = _loop or asyncio.get_event_loop()
        self.server_state = server_state
        self.parser: Any = _new_parser(self)
        self.transport: asyncio.Transport
        self.exchange: Exchange | None = None
        self.pipeline: deque[Exchange] = deque()
        self.is_write_paused = False
        self.on_hang_up: Callable[[], object] | None = None
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.head_bytes = 0
        self.is_in_head = True
        self._app_state = app_state
        self._server: tuple[str, int | None] | None = None
        self.client: tuple[str, int] | None = None
        self._scheme = "http"
        self._is_reading_paused = False
        self._writable: asyncio.Future[None] | None = None
        self._answering: Exchange | None = None
        self._seconds_behind = 0.0  # without the time since it fell behind last
        self._behind_since: float | None = None  # of the loop's clock
        self._idle_timer: asyncio.TimerHandle | None = None
        self._idle_since: float | None = None  # of the loop's clock; `None`: a request is on its way
        self._is_upgrade_declined = False
        self.is_upgraded = False
        self._request_ended = 0.0  # of the loop's clock
        self._half_closed: HalfClosedWatch | None = None

    # -- the transport's calls ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # uvloop's is no subclass
        self.server_state.connections.add(self)  # type: ignore[arg-type] # the server asks for `shutdown` alone
        self.transport = transport
        self._server = get_local_addr(transport)
        self.client = get_remote_addr(transport)
        self._scheme = "https" if is_ssl(transport) else "http"

    def connection_lost(self, exc: Exception | None) -> None:
        self.server_state.connections.discard(self)
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        if self._half_closed is not None:
            self._half_closed.stop()
        # Both may be running where requests are sent ahead: one is answered while the next one's body arrives.
        for exchange in (self._answering, self.exchange):
            if exchange is not None:
                exchange.disconnect()
        self.resume_writing()
        if exc is None:
            self.transport.close()
        # What leads back here is let go of, so that nothing of a connection waits for the garbage collector.
        self.parser = self.exchange = self._answering = self._half_closed = None
        on_hang_up, self.on_hang_up = self.on_hang_up, None
        if on_hang_up is not None:
            on_hang_up()

    def data_received(self, data: bytes) -> None:
        self._idle_since = None  # the idle timer goes on, and finds this
        try:
            self._parse(data)
        except httptools.HttpParserError:
            _log.warning("Invalid HTTP request received.")
            self.refuse_request()

    def eof_received(self) -> bool:
        """Called when the client has closed its sending side; returns whether it may still be there to read.

        A whole close looks the same. Which it was shows when something is written: a client that is gone resets.
        """
        exchange = self.exchange
        if exchange is None or exchange.response_complete or exchange.more_body or exchange.disconnected:
            return False
        now = self.loop.time()
        if not exchange.knows_chunks and now - self._request_ended > HTTP_1_0_HALF_CLOSE:
            return False
        exchange.keep_alive = False  # nothing more can be asked
        self._half_closed = HalfClosedWatch(self)
        return True

    def pause_writing(self) -> None:
        """Called when the client is behind: nothing more is written until it has caught up."""
        self.is_write_paused = True
        self._behind_since = self.loop.time()

    def resume_writing(self) -> None:
        """Called when it has."""
        self._seconds_behind, self._behind_since = self.seconds_behind, None
        self.is_write_paused = False
        writable, self._writable = self._writable, None
        if writable is not None:
            writable.set_result(None)

    def forget(self) -> None:
        """Serve no more requests: another protocol has taken the connection over."""
        self.server_state.connections.discard(self)
        self.is_upgraded = True
        self._idle_since = None

    # -- the server's calls -------------------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """Close once what is being answered is answered."""
        if self.exchange is None or self.exchange.response_complete:
            self.transport.close()
        else:
            self.exchange.keep_alive = False

    # -- the exchange's calls -----------------------------------------------------------------------------------------

    @property
    def seconds_behind(self) -> float:
        """How long the client has kept answers waiting, since the connection was made."""
        since = self._behind_since
        return self._seconds_behind if since is None else self._seconds_behind + self.loop.time() - since

    async def drain(self) -> None:
        """Wait until the client has caught up, or is gone."""
        if self.is_write_paused:
            if self._writable is None:
                self._writable = self.loop.create_future()
            await asyncio.shield(self._writable)  # which may have other waiters than a call that is cancelled

    def pause_reading(self) -> None:
        """Take no more of what the client sends; harmless when repeated."""
        if not self._is_reading_paused:
            self._is_reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Take it again; harmless when repeated."""
        if self._is_reading_paused:
            self._is_reading_paused = False
            self.transport.resume_reading()

    def on_response_complete(self) -> None:
        """Called when an answer has ended: the next request begins."""
        self.server_state.total_requests += 1  # uvicorn's server asks for it when it is configured to stop after some
        if self.transport.is_closing():
            return
        self.resume_reading()
        if self.pipeline:
            self._start(self.pipeline.pop())
        else:
            self._be_idle()

    # -- the parser's calls -------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.head_bytes = 0
        self.is_in_head = True

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        # After the head these are a chunked body's trailers. The application has its headers by then; more of them
        # must not appear there, least of all a caller's name.
        if self.is_in_head:
            self.headers.append((name.lower(), value))
            self.head_bytes += len(name) + len(value) + 4

    def on_headers_complete(self) -> None:
        self.is_in_head = False
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise ValueError("no tunnels here")  # what would follow is no HTTP of ours
            self._is_upgrade_declined = not self._is_websocket_wanted()
            return  # the parser pauses behind the head: see `_parse`
        version = self.parser.get_http_version()
        is_old = version in ("1.0", "0.9")
        self.check_host(is_optional=is_old)
        expects_continue = has_coding = False
        for name, value in self.headers:
            if name == b"expect":
                expects_continue = value.lower() == b"100-continue"
            elif name == b"transfer-encoding":
                # The parser also takes `identity`, repetitions and parameters, which others read differently. A
                # compressed body has a clear end; the middleware refuses it with a status that says why.
                if has_coding or _CODING.fullmatch(value.strip().lower()) is None:
                    raise ValueError("a transfer coding that is not known")
                has_coding = True
        exchange = self.exchange
        keep_alive = self.parser.should_keep_alive()
        if is_old:
            # A transfer coding is unknown to HTTP/1.0, so somebody on the way may have read another end of this
            # request; and such a client does not know interim answers.
            keep_alive = keep_alive and not has_coding
            expects_continue = False
        is_first = exchange is None or exchange.response_complete
        self.exchange = Exchange(
            self,
            self._scope(version),
            keep_alive=keep_alive,
            knows_chunks=not is_old,
            expects_continue=expects_continue,
        )
        if is_first:
            self._start(self.exchange)
        else:
            # Its body would be collected for as long as the requests before it take.
            self.pause_reading()
            self.pipeline.appendleft(self.exchange)

    def on_body(self, body: bytes) -> None:
        exchange = self.exchange
        # What comes after the response is dropped: the application has decided without it.
        if exchange is not None and not exchange.response_complete and exchange.receive_body(body) > MAX_UNREAD_BODY:
            self.pause_reading()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # the parser takes such a request for complete at the end of its head
        self._request_ended = self.loop.time()
        exchange = self.exchange
        if exchange is not None and not exchange.response_complete:
            exchange.end_body()

    # -- requests -----------------------------------------------------------------------------------------------------

    def _scope(self, version: str) -> dict[str, Any]:
        url = self.url
        # Nearly every request's target is a plain path, which needs no parser.
        if _PLAIN_PATH.fullmatch(url) and not url.startswith(b"//"):
            path, raw_path, query = url.decode("ascii"), url, b""
        else:
            parsed = httptools.parse_url(url)
            raw_path = parsed.path
            path = unquote(raw_path.decode("ascii"))
            query = parsed.query or b""
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            "server": self._server,
            "client": self.client,
            "scheme": self._scheme,
            "method": self.parser.get_method().decode("ascii"),
            "root_path": "",
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": self.headers,
            "state": self._app_state.copy(),
            "extensions": {},
        }

    def check_host(self, *, is_optional: bool = False) -> None:
        """Raise ValueError, which ends the parsing, unless the request says once, and well, which host it means."""
        hosts = 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
                if _HOST.fullmatch(value) is None:
                    raise ValueError("no host")
        if hosts != 1 and (hosts or not is_optional):
            raise ValueError("no Host, or several")

    def _start(self, exchange: Exchange) -> None:
        """Run the application for a request whose turn it is."""
        self._answering = exchange
        exchange.start(self.app, self.server_state.tasks)

    def refuse_request(self) -> None:
        """Answer bytes that are no HTTP, and close."""
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()

    def _parse(self, data: bytes | memoryview) -> None:
        """Feed the parser. Raises HttpParserError."""
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as pause:
                rest = memoryview(data)[pause.args[0] :]  # from the byte behind the head on
                if not self._is_upgrade_declined:
                    self._hand_over_to_websocket(bytes(rest))
                    return
                self._repeat_head_without_upgrade()
                data = rest
            else:
                return

    def _repeat_head_without_upgrade(self) -> None:
        """Let a new parser read the request's head, as if no upgrade had been offered.

        The parser skips the body of a request that offers one, and cannot be told otherwise. The head that it has
        accepted is written anew from its parts, so that the new parser finds the same framing in it.
        """
        request_line = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        fields = [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = _new_parser(self)
        self._is_upgrade_declined = False
        self.parser.feed_data(b"\r\n".join((request_line, *fields, b"", b"")))

    # -- websockets ---------------------------------------------------------------------------------------------------

    websocket_paths: frozenset[str] = frozenset()

    def _is_websocket_wanted(self) -> bool:
        """Whether the request opens a websocket where there is one; anything else is answered without upgrading."""
        if self.parser.get_method() != b"GET" or self.pipeline or self._is_busy():
            return False
        # One protocol in one field: with several, the client would have to be told which was chosen.
        offers = [value.strip().lower() for name, value in self.headers if name == b"upgrade"]
        return offers == [b"websocket"] and self._scope("1.1")["path"] in self.websocket_paths

    def _is_busy(self) -> bool:
        return self.exchange is not None and not self.exchange.response_complete

    def _hand_over_to_websocket(self, rest: bytes) -> None:
        """Let uvicorn's protocol for websockets take the connection over; it reads the handshake once more."""
        self.check_host()
        make_websocket: Callable[..., asyncio.Protocol] | None = self.config.ws_protocol_class
        if make_websocket is None:
            raise RuntimeError("the server was configured without websockets")
        head = [b"GET %b HTTP/1.1\r\n" % self.url, *(b"%b: %b\r\n" % field for field in self.headers), b"\r\n"]
        websocket = make_websocket(
            config=self.config, server_state=self.server_state, app_state=self._app_state, _loop=self.loop
        )
        # Before the handshake is read, since its answer may already pause writing.
        self.transport.set_protocol(UpgradedConnection(self, websocket))
        websocket.connection_made(self.transport)
        websocket.data_received(b"".join(head) + rest)

    # -- idle connections ---------------------------------------------------------------------------------------------

    def _be_idle(self) -> None:
        # One timer serves all pauses of a connection: it looks when the pause began, so that a request costs none.
        self._idle_since = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.config.timeout_keep_alive, self._look_if_idle)

    def _look_if_idle(self) -> None:
        self._idle_timer = None
        if self._idle_since is None or self.transport.is_closing():
            return
        ends_at = self._idle_since + self.config.timeout_keep_alive
        if self.loop.time() < ends_at:
            self._idle_timer = self.loop.call_at(ends_at, self._look_if_idle)
        else:
            self.transport.close()


def _new_parser(connection: Http1Connection) -> Any:
    parser = httptools.HttpRequestParser(connection)
    # A request behind one with ``Connection: close`` is passed over, and is no fault of the one before it.
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser
