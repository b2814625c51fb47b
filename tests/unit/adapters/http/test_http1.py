"""The connection itself, fed by hand: whatever is offered and however it is cut, a request stays one request."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import socket
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

import virtual_time
from aiproject.adapters.http.asgi import CHUNKS, ASGIApp, Receive, Scope, Send, send_json
from aiproject.adapters.http.connection_counts import ConnectionCounts
from aiproject.adapters.http.connections import GuardedConnection
from aiproject.adapters.http.errors import STANDARD_DIALECTS
from aiproject.adapters.http.exchange import CONTINUE
from aiproject.protocols.dialects import Dialects

OFFERS = [
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    b"UPGRADE: foo/2, bar\r\nCONNECTION: keep-alive, upgrade\r\n",
    b"Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n",
]
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: y\r\n\r\n"


@pytest.fixture(autouse=True)
def _quiet_uvicorn() -> Iterator[None]:
    logger = logging.getLogger("uvicorn.error")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


class FakeSocket:
    """Has an error pending, as the system would tell it."""

    error = 0
    looks = 0

    def getsockname(self) -> tuple[str, int]:
        return "192.0.2.2", 80

    def getpeername(self) -> tuple[str, int]:
        return "192.0.2.1", 1

    def getsockopt(self, level: int, option: int) -> int:
        self.looks += 1
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR)
        return self.error


class FakeTransport(asyncio.Transport):
    """A connection to nobody; keeps what is written."""

    def __init__(self) -> None:
        self.socket = FakeSocket()
        self.written = bytearray()
        self.is_closed = False
        self.is_ended = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.socket if name == "socket" else default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_closed
        assert not self.is_ended, "written after the end"
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.is_ended = True

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True


@dataclass
class Served:
    """What the application was asked, and what the client was told.

    Attributes:
        asked: of each request its scope, without what belongs to an offer, and its body.
        is_closed: the server closed the connection by itself.
    """

    asked: list[tuple[dict[str, Any], bytes]] = field(default_factory=list)
    written: bytes = b""
    is_closed: bool = False

    @property
    def paths(self) -> list[str]:
        return [scope["path"] for scope, _ in self.asked]


OF_AN_OFFER = {b"connection", b"upgrade", b"http2-settings", b"sec-websocket-key"}
OF_A_REQUEST = ("method", "path", "raw_path", "query_string", "http_version", "scheme", "client", "server")


class Recorder:
    """An application that notes what it is asked and tells it back."""

    def __init__(self) -> None:
        self.asked: list[tuple[dict[str, Any], bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            if not message["more_body"]:
                break
        kept = {name: scope[name] for name in OF_A_REQUEST}
        kept["headers"] = [pair for pair in scope["headers"] if pair[0] not in OF_AN_OFFER]
        self.asked.append((kept, body))
        told = {"path": scope["path"], "body": body.decode("latin-1")}
        await send_json(send, 200, json.dumps(told).encode())


def connect(app: ASGIApp) -> tuple[GuardedConnection, FakeTransport, ServerState]:
    """A connection of the server's own kind; needs a running loop."""
    config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none", interface="asgi3")
    state = ServerState()
    connection = GuardedConnection(
        config,
        state,
        {},
        asyncio.get_running_loop(),
        head_timeout=30,
        counts=ConnectionCounts(10),
        reader_timeout=30,
        dialects=Dialects(STANDARD_DIALECTS),
    )
    transport = FakeTransport()
    connection.connection_made(transport)
    return connection, transport, state


async def settle(turns: int = 20) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


async def finish(connection: GuardedConnection, state: ServerState) -> None:
    tasks = list(state.tasks)
    connection.connection_lost(None)
    assert await asyncio.gather(*tasks) == [None] * len(tasks)


async def _serve(pieces: Iterable[bytes]) -> Served:
    app = Recorder()
    connection, transport, state = connect(app)
    for piece in pieces:
        if transport.is_closed:
            break
        connection.data_received(piece)
        await settle()
    await settle(5 * len(connection.pipeline))
    served = Served(app.asked, bytes(transport.written), transport.is_closed)
    await finish(connection, state)
    return served


def serve(*pieces: bytes) -> Served:
    """Let a connection receive these reads, one after another."""
    return asyncio.run(_serve(pieces))


def serve_each(connections: Iterable[Sequence[bytes]]) -> list[Served]:
    """The same for many connections, each with its reads, in one loop."""

    async def serve_all() -> list[Served]:
        return [await _serve(pieces) for pieces in connections]

    return asyncio.run(serve_all())


def chunked(pieces: Sequence[bytes]) -> bytes:
    return b"".join(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece) + b"0\r\nX-T: 1\r\n\r\n"


def post(offer: bytes, body: Sequence[bytes], *, in_chunks: bool) -> bytes:
    """A request whose body is the pieces joined, with the fields of an offer to upgrade."""
    framing = b"Transfer-Encoding: chunked\r\n" if in_chunks else b"Content-Length: %d\r\n" % len(b"".join(body))
    head = b"POST /a%20b?c=d HTTP/1.1\r\nHost: x\r\nX-Odd:   a \t b  \r\nX-Empty:\r\n" + offer + framing + b"\r\n"
    return head + (chunked(body) if in_chunks else b"".join(body))


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """The data in reads that end at these places."""
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False) if end > start]


class TestUpgradeThatIsNotTaken:
    @settings(deadline=None)
    @given(
        offer=st.sampled_from(OFFERS),
        body=st.lists(
            st.sampled_from([SMUGGLED, b"0\r\n\r\n", b"\r\n\r\n", b"\0\xff"]) | st.binary(max_size=40), max_size=4
        ),
        in_chunks=st.booleans(),
        places=st.lists(st.integers(0, 1000), max_size=6),
    )
    @example(offer=OFFERS[0], body=[SMUGGLED], in_chunks=False, places=[])
    @example(offer=OFFERS[1], body=[SMUGGLED], in_chunks=True, places=[])
    def test_the_request_and_the_next_are_as_without_it(
        self, offer: bytes, body: list[bytes], in_chunks: bool, places: list[int]
    ) -> None:
        plain = serve(post(b"", body, in_chunks=in_chunks) + NEXT)
        offered = serve(*cut(post(offer, body, in_chunks=in_chunks) + NEXT, places))
        assert offered == plain
        assert offered.paths == ["/a b", "/next"]
        assert offered.asked[0][1] == b"".join(body)

    @pytest.mark.parametrize("in_chunks", [False, True])
    @pytest.mark.parametrize("offer", OFFERS)
    def test_wherever_its_bytes_are_cut(self, offer: bytes, in_chunks: bool) -> None:
        request = post(offer, [SMUGGLED, b"ab"], in_chunks=in_chunks) + NEXT
        whole = serve(request)
        assert whole.paths == ["/a b", "/next"]
        assert whole.asked[0][1] == SMUGGLED + b"ab"
        for place, served in enumerate(serve_each((request[:n], request[n:]) for n in range(len(request)))):
            assert served == whole, place

    @pytest.mark.parametrize("in_chunks", [False, True])
    @pytest.mark.parametrize("offer", OFFERS)
    def test_byte_by_byte(self, offer: bytes, in_chunks: bool) -> None:
        request = post(offer, [SMUGGLED, b"ab"], in_chunks=in_chunks) + NEXT
        assert serve(*cut(request, range(len(request)))) == serve(request)

    @pytest.mark.parametrize("count", [2, 50])
    def test_several_in_one_read(self, count: int) -> None:
        offered = [post(offer, [SMUGGLED], in_chunks=index % 2 == 0) for index, offer in enumerate(OFFERS * count)]
        served = serve(b"".join(offered[:count]) + NEXT)
        assert served.paths == ["/a b"] * count + ["/next"]

    def test_without_a_body(self) -> None:
        request = b"GET /page HTTP/1.1\r\nHost: x\r\n" + OFFERS[1] + b"\r\n"
        assert serve(request + NEXT).paths == ["/page", "/next"]
        assert b" 101 " not in serve(request).written

    @pytest.mark.parametrize(
        "framing",
        [
            b"Content-Length: 5\r\nContent-Length: 6\r\n",
            b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: chunked, identity\r\n",
            b"Content-Length: +5\r\n",
        ],
    )
    def test_a_framing_that_is_refused_without_it_is_refused_with_it(self, framing: bytes) -> None:
        for offer in (b"", *OFFERS):
            request = b"POST /a HTTP/1.1\r\nHost: x\r\n" + offer + framing + b"\r\n" + SMUGGLED
            served = serve(request)
            assert "/smuggled" not in served.paths
            assert served.written.startswith(b"HTTP/1.1 400 ") or served.asked == [], (offer, served)

    def test_a_body_that_is_not_whole_is_awaited(self) -> None:
        request = post(OFFERS[0], [SMUGGLED], in_chunks=False)
        assert serve(request[:-1]) == Served()


@pytest.mark.parametrize("target", [b"example.com:443", b"/health", b"http://x/"])
def test_nothing_is_tunnelled(target: bytes) -> None:
    served = serve(b"CONNECT " + target + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", SMUGGLED)
    assert served.asked == []
    assert served.written.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in served.written


class TestHost:
    @pytest.mark.parametrize(
        "host",
        [
            "example.com",
            "example.com:8080",
            "a_b.example:",
            "127.0.0.1:1",
            "[::1]",
            "[fe80::1]:80",
            "",
            "xn--fiqs8s.example",
            "%E4%B8%AD.example",
        ],
    )
    def test_one_is_asked_for(self, host: str) -> None:
        assert serve(b"GET /a HTTP/1.1\r\nHost: " + host.encode() + b"\r\n\r\n").paths == ["/a"]

    @pytest.mark.parametrize(
        "fields",
        [
            "",
            "Host: a\r\nHost: a\r\n",
            "Host: a\r\nX: y\r\nHOST: b\r\n",
            "Host: a b\r\n",
            "Host: a, b\r\n",
            "Host: a/b\r\n",
            "Host: user@a\r\n",
            "Host: a:b\r\n",
            "Host: [::1\r\n",
            "Host: ::1\r\n",
            "Host: 中.example\r\n",
            "Host: a%2\r\n",
        ],
    )
    def test_none_two_or_nonsense_are_refused(self, fields: str) -> None:
        for offer in (b"", OFFERS[0]):
            served = serve(b"GET /a HTTP/1.1\r\n" + fields.encode() + offer + b"\r\n")
            assert served.asked == []
            head, _, body = served.written.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400 ")
            assert b"connection: close" in head
            assert json.loads(body)["code"] == "APP_QUERY_METHOD_ERROR"

    def test_old_clients_need_not_know_it(self) -> None:
        assert serve(b"GET /a HTTP/1.0\r\n\r\n").paths == ["/a"]
        assert serve(b"GET /a HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n").paths == []


async def _stream(scope: Scope, receive: Receive, send: Send) -> None:
    assert CHUNKS not in scope["extensions"]
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": int(scope["path"][1:]), "headers": headers})
    for piece in (b"one", b"two", b""):
        await send({"type": "http.response.body", "body": piece, "more_body": bool(piece)})


class TestHttp10:
    def ask(self, app: ASGIApp, request: bytes) -> tuple[bytes, bytes, bool]:
        """Head, what comes behind it, whether the connection was closed."""

        async def scenario() -> tuple[bytes, bytes, bool]:
            connection, transport, state = connect(app)
            connection.data_received(request)
            await settle()
            is_closed = transport.is_closed
            await finish(connection, state)
            head, _, body = bytes(transport.written).partition(b"\r\n\r\n")
            return head, body, is_closed

        return virtual_time.run(scenario())

    def test_a_stream_ends_with_the_connection(self) -> None:
        for fields in (b"", b"Connection: keep-alive\r\n"):
            head, body, is_closed = self.ask(_stream, b"GET /200 HTTP/1.0\r\n" + fields + b"\r\n")
            assert body == b"onetwo"
            assert is_closed
            assert b"transfer-encoding" not in head
            assert b"connection: close" in head

    def test_a_known_length_keeps_the_connection_for_who_asks(self) -> None:
        request = b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
        head, body, is_closed = self.ask(Recorder(), request * 2)
        assert head.endswith(b"connection: keep-alive")
        assert body.count(b"HTTP/1.1 200 ") == 1, "the second answer"
        assert not is_closed

    def test_it_does_not_for_others(self) -> None:
        head, _, is_closed = self.ask(Recorder(), b"GET /a HTTP/1.0\r\n\r\n")
        assert b"connection: close" in head
        assert is_closed

    def test_answers_without_a_body(self) -> None:
        for line in (b"HEAD /200", b"GET /204", b"GET /304"):
            _, body, is_closed = self.ask(_bodiless, line + b" HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert body == b""
            assert not is_closed

    def test_a_coded_body_ends_the_connection(self) -> None:
        fields = b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n"
        head, _, is_closed = self.ask(Recorder(), b"POST /a HTTP/1.0\r\n" + fields + b"\r\n1\r\na\r\n0\r\n\r\n")
        assert b"connection: close" in head
        assert is_closed

    def test_no_interim_answer_is_sent(self) -> None:
        request = b"POST /a HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\na"
        head, _, _ = self.ask(Recorder(), request)
        assert head.startswith(b"HTTP/1.1 200 ")

    def test_an_application_that_asks_for_a_close_gets_it(self) -> None:
        async def closing(scope: Scope, receive: Receive, send: Send) -> None:
            await send_json(send, 200, b"{}", headers=[(b"connection", b"close")])

        head, _, is_closed = self.ask(closing, b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert b"keep-alive" not in head
        assert is_closed


async def _bodiless(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": int(scope["path"][1:]), "headers": []})
    await send({"type": "http.response.body", "body": b""})


class Patient:
    """An application that answers when it is let, and notices a client that goes."""

    def __init__(self) -> None:
        self.may_start = asyncio.Event()
        self.may_end = asyncio.Event()
        self.is_alone = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        watch = asyncio.create_task(self._watch(receive))
        await self.may_start.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"o", "more_body": True})
        await self.may_end.wait()
        await send({"type": "http.response.body", "body": b"k"})
        await watch

    async def _watch(self, receive: Receive) -> None:
        assert (await receive())["type"] == "http.disconnect"
        self.is_alone = True


class TestHalfClosed:
    """The client has sent its request and closed its sending side."""

    GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
    CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

    def run(self, scenario: Callable[[Patient, GuardedConnection, FakeTransport], Any]) -> None:
        async def whole() -> None:
            app = Patient()
            connection, transport, state = connect(app)
            await scenario(app, connection, transport)
            app.may_start.set()
            app.may_end.set()
            await settle()
            await finish(connection, state)

        virtual_time.run(whole())

    def test_a_prompt_answer_comes_as_ever_and_ends_the_connection(self) -> None:
        async def scenario(app: Patient, connection: GuardedConnection, transport: FakeTransport) -> None:
            connection.data_received(self.GET)
            assert connection.eof_received()
            app.may_start.set()
            app.may_end.set()
            await settle()
            assert transport.written.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" in transport.written
            assert transport.written.endswith(b"ok")
            assert transport.is_closed

        self.run(scenario)

    def test_a_client_that_waits_is_asked_now_and_then_whether_it_is_there(self) -> None:
        async def scenario(app: Patient, connection: GuardedConnection, transport: FakeTransport) -> None:
            connection.data_received(self.GET)
            assert connection.eof_received()
            await asyncio.sleep(1)
            assert transport.written == self.CONTINUE
            await asyncio.sleep(10)
            assert transport.written == self.CONTINUE * 3
            assert not app.is_alone
            app.may_start.set()
            app.may_end.set()
            await settle()
            assert transport.written.endswith(b"ok")

        self.run(scenario)

    @pytest.mark.parametrize("has_started", [False, True])
    def test_a_reset_is_noticed(self, has_started: bool) -> None:
        async def scenario(app: Patient, connection: GuardedConnection, transport: FakeTransport) -> None:
            connection.data_received(self.GET)
            if has_started:
                app.may_start.set()
            await settle()
            assert connection.eof_received()
            await asyncio.sleep(1)
            assert not transport.is_closed
            assert (self.CONTINUE in transport.written) is not has_started
            transport.socket.error = 32
            await asyncio.sleep(1.5)
            assert transport.is_closed

        self.run(scenario)

    def test_a_client_that_waits_long_costs_a_look_a_second(self) -> None:
        async def scenario(app: Patient, connection: GuardedConnection, transport: FakeTransport) -> None:
            connection.data_received(self.GET)
            assert connection.eof_received()
            await asyncio.sleep(60)
            assert 60 <= transport.socket.looks <= 75

        self.run(scenario)

    @pytest.mark.parametrize("received", [b"", GET[:-2], b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nab"])
    def test_who_has_not_asked_yet_is_let_go(self, received: bytes) -> None:
        async def scenario(app: Patient, connection: GuardedConnection, transport: FakeTransport) -> None:
            connection.data_received(received)
            assert not connection.eof_received()

        self.run(scenario)

    def test_who_has_been_answered_is_let_go(self) -> None:
        async def scenario(app: Patient, connection: GuardedConnection, transport: FakeTransport) -> None:
            connection.data_received(self.GET)
            app.may_start.set()
            app.may_end.set()
            await settle()
            assert not connection.eof_received()

        self.run(scenario)

    def test_old_clients_are_believed_for_a_moment_and_never_asked(self) -> None:
        async def scenario(app: Patient, connection: GuardedConnection, transport: FakeTransport) -> None:
            connection.data_received(b"GET /a HTTP/1.0\r\n\r\n")
            assert connection.eof_received()
            await asyncio.sleep(60)
            assert transport.written == b""

        self.run(scenario)

        async def late(app: Patient, connection: GuardedConnection, transport: FakeTransport) -> None:
            connection.data_received(b"GET /a HTTP/1.0\r\n\r\n")
            await asyncio.sleep(1)
            assert not connection.eof_received()

        self.run(late)

    def test_every_request_sent_before_is_answered(self) -> None:
        async def scenario(app: Patient, connection: GuardedConnection, transport: FakeTransport) -> None:
            connection.data_received(self.GET * 2)
            assert connection.eof_received()
            await asyncio.sleep(5)
            assert transport.written == b"", "an interim answer could not be told from the first answer's"
            app.may_start.set()
            app.may_end.set()
            await settle()
            assert transport.written.count(b"HTTP/1.1 200 ") == 2
            assert transport.is_closed

        self.run(scenario)


class TestManyInOneReading:
    """Requests that are sent before the first is answered wait as bytes, not as thousands of objects."""

    COUNT = 3000

    @pytest.mark.parametrize("half_closed", [False, True])
    def test_all_are_answered_in_turn(self, half_closed: bool) -> None:
        async def scenario() -> None:
            app = Recorder()
            connection, transport, state = connect(app)
            lines = [b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(self.COUNT)]
            connection.data_received(b"".join(lines))
            assert len(connection.pipeline) < 200
            if half_closed:
                assert connection.eof_received()
            async with asyncio.timeout(30):
                while len(app.asked) < self.COUNT:
                    assert len(connection.pipeline) < 200
                    await asyncio.sleep(0)
            await settle()
            assert [scope["path"] for scope, _ in app.asked] == [f"/{number}" for number in range(self.COUNT)]
            assert transport.written.count(b"HTTP/1.1 200 ") == self.COUNT
            assert transport.is_closed is half_closed
            await finish(connection, state)

        asyncio.run(scenario())

    def test_a_body_among_them_stays_whole(self) -> None:
        body = SMUGGLED * 1000
        served = serve(NEXT * 200 + post(OFFERS[0], [body], in_chunks=False) + NEXT * 200)
        assert served.paths == ["/next"] * 200 + ["/a b"] + ["/next"] * 200
        assert served.asked[200][1] == body


class TestTransferCodings:
    """A body is chunked or it is not: what it would be decoded from besides is refused, as are repetitions."""

    @pytest.mark.parametrize(
        "fields",
        [
            b"Transfer-Encoding: gzip, gzip, chunked",
            b"Transfer-Encoding: gzipchunked",
            b"Transfer-Encoding: , chunked",
            b"Transfer-Encoding: chunked, chunked",
            b"Transfer-Encoding: chunked;q=1",
            b"Transfer-Encoding: identity",
            b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nContent-Length: 5",
            b"Transfer-Encoding : chunked",
            b"Transfer-Encoding:\r\n chunked",
        ],
    )
    @pytest.mark.parametrize("offer", [b"", OFFERS[0]])
    @pytest.mark.parametrize("version", [b"1.1", b"1.0"])
    def test_only_chunked_is_known(self, version: bytes, offer: bytes, fields: bytes) -> None:
        head = b"POST /a HTTP/%b\r\nHost: x\r\n%b%b\r\n\r\n" % (version, offer, fields)
        served = serve(head + b"0\r\n\r\n" + SMUGGLED)
        assert served.asked == []
        assert served.written.startswith(b"HTTP/1.1 400 ")
        assert served.written.count(b"HTTP/1.1 ") == 1

    @pytest.mark.parametrize("coding", [b"chunked", b"Chunked", b"   chunked "])
    def test_its_case_and_the_space_around_it_do_not_matter(self, coding: bytes) -> None:
        head = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:%b\r\n\r\n" % coding
        served = serve(head + chunked([b"body"]) + NEXT)
        assert served.paths == ["/a", "/next"]


class TestRefusedBodies:
    """A body that is no HTTP ends its request, even before the application has seen it."""

    @pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
    @pytest.mark.parametrize("is_one_read", [True, False])
    def test_the_application_sees_a_client_that_is_gone(self, is_one_read: bool, expect: bytes) -> None:
        head = b"POST /a HTTP/1.1\r\nHost: x\r\n%bTransfer-Encoding: chunked\r\n\r\n" % expect
        body = b"ZZ\r\n"
        seen: list[str] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            seen.append((await receive())["type"])

        async def scenario() -> None:
            connection, transport, state = connect(app)
            for piece in [head + body] if is_one_read else [head, body]:
                connection.data_received(piece)
                await settle()
            assert seen == ["http.disconnect"]
            assert transport.written.removeprefix(CONTINUE).startswith(b"HTTP/1.1 400 ")
            assert transport.written.count(b"HTTP/1.1 400 ") == 1
            await finish(connection, state)

        asyncio.run(scenario())


class TestTrailers:
    """The parser keeps a trailer until it is whole, and a body buys no room for one."""

    HEAD = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

    def test_a_long_one_is_refused_whatever_the_body_before_it(self) -> None:
        body = chunked([bytes(1024 * 1024)]).removesuffix(b"X-T: 1\r\n\r\n")
        served = serve(self.HEAD + body + b"X-T: ", *[b"a" * 32 * 1024] * 3)
        assert served.written.startswith(b"HTTP/1.1 400 ")
        assert served.asked == []

    def test_a_body_in_the_smallest_chunks_is_taken(self) -> None:
        pieces = [b"x"] * 50_000
        served = serve(self.HEAD + b"".join(b"1\r\nx\r\n" for _ in pieces) + b"0\r\nX-T: 1\r\n\r\n")
        assert [len(body) for _, body in served.asked] == [len(pieces)]


class Marker:
    """Something that a request's scope holds."""


def test_an_answered_request_leaves_nothing_for_the_garbage_collector() -> None:
    held: list[weakref.ref[Marker]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["marker"] = Marker()
        held.append(weakref.ref(scope["marker"]))
        await send_json(send, 200, b"{}")

    async def scenario() -> None:
        connection, _, state = connect(app)
        for _ in range(3):
            connection.data_received(NEXT)
            await settle()
        assert [marker() is None for marker in held] == [True, True, False], "the connection knows its last request"
        await finish(connection, state)
        assert held[-1]() is None

    gc.disable()
    try:
        virtual_time.run(scenario())
    finally:
        gc.enable()
