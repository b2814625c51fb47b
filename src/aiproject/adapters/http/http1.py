"""HTTP/1.0 and HTTP/1.1 by RFC 9110 and RFC 9112, where uvicorn's connection over httptools departs from them.

- An offer to upgrade (``Upgrade``) that is not taken leaves the request as it is: its body is read, and the answer is
  HTTP/1.1 (RFC 9110, section 7.8). uvicorn loses the body, or reads it as the next request.
- ``Host`` comes exactly once in HTTP/1.1, at most once in HTTP/1.0, and is a host (RFC 9112, section 3.2).
- Answers to HTTP/1.0 have a length or end with the connection; they never come in chunks (RFC 9112, section 6.1).
- A client that has closed its sending side only still gets its answer (RFC 9112, section 9.6).
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from aiproject.adapters.http.asgi import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Http1Connection", "knows_chunks"]

PROBE_GRACE: Final = 0.25
"""Seconds that an answer may take after its client has closed its sending side, before the client is probed. Most
answers have begun by then, and what is written of them is the probe."""

PROBE_INTERVAL: Final = 5.0
"""Seconds between further probes: as long may a client that has gone since then remain unnoticed."""

RESET_INTERVAL: Final = 0.1
"""Seconds between two looks for the reset by which a client's system tells that nobody is there any more, within
`HASTE` of its half-close."""

LATER_RESET_INTERVAL: Final = 1.0
"""The same from then on: a look takes 16 µs, and one address may hold a thousand connections half-closed."""

HASTE: Final = 1.0
"""Seconds after a half-close in which most clients that have gone are found: the first probe and a round trip."""

HTTP_1_0_HALF_CLOSE: Final = 0.5
"""Seconds after the end of a request within which an HTTP/1.0 client may close its sending side and still get its
answer. Such clients cannot be asked whether they are there, so a later close is taken for a hang-up."""

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
"""The interim answer that clients skip wherever it comes (RFC 9110, section 15.2.1)."""

_NAME: Final = rb"[A-Za-z0-9._~!$&'()*+,;=-]*(?:%[0-9A-Fa-f]{2}[A-Za-z0-9._~!$&'()*+,;=-]*)*"
_HOST: Final = re.compile(rb"(?:" + _NAME + rb"|\[[0-9A-Fa-fvV:.]+\])(?::[0-9]*)?")
"""``Host = uri-host [ ":" port ]`` (RFC 9110, section 7.2; RFC 3986, section 3.2.2). The host may be empty."""


def knows_chunks(scope: Mapping[str, object]) -> bool:
    """Return whether the client understands ``Transfer-Encoding: chunked``: from HTTP/1.1 on."""
    return scope["http_version"] not in ("1.0", "0.9")


class Http1Connection(HttpToolsProtocol):
    """uvicorn's connection, corrected; see the module."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._is_upgrade_declined = False
        self._request_ended = 0.0  # of the loop's clock
        self._reset_timer: asyncio.TimerHandle | None = None
        self._next_probe = 0.0  # of the loop's clock
        self._end_of_haste = 0.0  # of the loop's clock

    # -- the transport's calls ----------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserError:
            message = "Invalid HTTP request received."
            self.logger.warning(message)
            self.send_400_response(message)

    def eof_received(self) -> bool:  # type: ignore[override] # uvicorn closes always
        """Called when the client has closed its sending side; returns whether it may still be there to read.

        A whole close looks the same. Which it was shows when something is written: a client that is gone resets.
        """
        cycle = self.cycle
        if cycle is None or cycle.response_complete or cycle.more_body or cycle.disconnected:
            return False
        if not knows_chunks(cycle.scope) and self.loop.time() - self._request_ended > HTTP_1_0_HALF_CLOSE:
            return False
        cycle.keep_alive = False  # nothing more can be asked
        now = self.loop.time()
        self._next_probe = now + PROBE_GRACE
        self._end_of_haste = now + HASTE
        self._reset_timer = self.loop.call_later(RESET_INTERVAL, self._watch_half_closed)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if self._reset_timer is not None:
            self._reset_timer.cancel()
            self._reset_timer = None
        super().connection_lost(exc)

    # -- the parser's calls -------------------------------------------------------------------------------------------

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise ValueError("no tunnels here")  # what would follow is no HTTP of ours
            if not self._should_upgrade():
                self._is_upgrade_declined = True
                return  # the parser pauses behind the head: see `_parse`
        self._check_host()
        super().on_headers_complete()
        if not knows_chunks(self.scope):
            self._restrict_to_http_1_0(self.cycle)

    def on_message_complete(self) -> None:
        if not self._is_upgrade_declined:
            super().on_message_complete()
            self._request_ended = self.loop.time()

    # -- requests -----------------------------------------------------------------------------------------------------

    def _parse(self, data: bytes | memoryview) -> None:
        """Feed the parser. Raises HttpParserError."""
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as pause:
                if self._should_upgrade():
                    self.handle_websocket_upgrade()
                    return
                self._repeat_head_without_upgrade()
                data = memoryview(data)[pause.args[0] :]  # from the byte behind the head on
            else:
                return

    def _repeat_head_without_upgrade(self) -> None:
        """Let a new parser read the request's head, as if no upgrade had been offered.

        The parser skips the body of a request that offers one, and cannot be told otherwise. The head that it has
        accepted is written anew from its parts, so that the new parser finds the same framing in it.
        """
        request_line = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        fields = [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self._is_upgrade_declined = False
        self.parser.feed_data(b"\r\n".join((request_line, *fields, b"", b"")))

    def _check_host(self) -> None:
        """Raise ValueError, which ends the parsing, unless the request says once, and well, which host it means."""
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) == 1:
            is_valid = _HOST.fullmatch(hosts[0]) is not None
        else:
            is_valid = not hosts and self.parser.get_http_version() in ("1.0", "0.9")
        if not is_valid:
            raise ValueError("no Host, several, or none that is a host")

    # -- HTTP/1.0 -----------------------------------------------------------------------------------------------------

    def _restrict_to_http_1_0(self, cycle: RequestResponseCycle) -> None:
        # A transfer coding is unknown to HTTP/1.0, so somebody on the way may have read another end of this request.
        has_coding = any(name == b"transfer-encoding" for name, _ in self.headers)
        cycle.keep_alive = self.parser.should_keep_alive() and not has_coding
        cycle.waiting_for_100_continue = False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if not knows_chunks(cycle.scope):
            app = partial(_answer_without_chunks, cycle, app)
        super()._start_asgi_task(cycle, app)

    # -- half-closed clients ------------------------------------------------------------------------------------------

    def _watch_half_closed(self) -> None:
        """Find out, while its answer lasts, whether a client that has closed its sending side is there to read it.

        The transport does not tell: it watches nothing but its own writes from the end of what it reads.
        """
        self._reset_timer = None
        if self.cycle.response_complete or self.transport.is_closing():
            return
        if self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()  # its call learns that the client is gone
            return
        now = self.loop.time()
        if now >= self._next_probe:
            self._next_probe = now + PROBE_INTERVAL
            self._probe_client()
        interval = RESET_INTERVAL if now < self._end_of_haste else LATER_RESET_INTERVAL
        self._reset_timer = self.loop.call_later(interval, self._watch_half_closed)

    def _probe_client(self) -> None:
        """Write something harmless, unless it would fall into an answer or the client does not know interim answers."""
        cycle = self.cycle
        if not self.pipeline and not cycle.response_started and knows_chunks(cycle.scope):
            self.transport.write(CONTINUE)


async def _answer_without_chunks(
    cycle: RequestResponseCycle, app: ASGIApp, scope: Scope, receive: Receive, send: Send
) -> None:
    """Serve an HTTP/1.0 client: the end of a body without a length is the end of the connection."""
    ends_with_connection = False

    async def send_without_chunks(message: Message) -> None:
        nonlocal ends_with_connection
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            names = {name.lower() for name, _ in headers}
            has_body = scope["method"] != "HEAD" and message["status"] not in (204, 304)
            if has_body and b"content-length" not in names:
                ends_with_connection = True
                cycle.keep_alive = False
                cycle.chunked_encoding = False
            elif cycle.keep_alive and b"connection" not in names:
                message = {**message, "headers": [*headers, (b"connection", b"keep-alive")]}
        elif ends_with_connection:
            cycle.expected_content_length = len(message.get("body", b""))  # uvicorn counts down what is left
        await send(message)

    await app(scope, receive, send_without_chunks)
