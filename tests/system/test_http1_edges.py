"""HTTP/1 at its edges, over real sockets: offers to upgrade, HTTP/1.0, ``Host``, half-closed clients, ``HEAD``."""

from __future__ import annotations

import asyncio
import json
import socket
import struct

import pytest

from system import wire
from system.harness import LocalServer, Person, Platform, eventually

OFFERS = {
    "h2c": [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAAQ")],
    "websocket": [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")],
    "nonsense": [("Upgrade", "foo/2, bar"), ("Connection", "keep-alive, upgrade")],
}
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
STORY = "tell me a story [[fault:slow seconds=0.05]] [[fault:frames n=20]]"  # 1 s
STALL = "[[fault:stall at=first]]"


@pytest.fixture
async def person(server: LocalServer) -> Person:
    return await server.person()


def request(path: str, fields: list[tuple[str, str]], body: bytes, version: str = "1.1") -> bytes:
    """A POST of JSON as bytes, with exactly these fields besides those of the body."""
    lines = [f"POST {path} HTTP/{version}", "Content-Type: application/json", *(f"{n}: {v}" for n, v in fields)]
    return "\r\n".join(lines).encode() + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body


async def exchange(port: int, *pieces: bytes, half_close: bool = False) -> bytes:
    """Send these pieces, each on its way before the next; return all that comes until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            if len(pieces) > 1:
                await asyncio.sleep(0.001)
        if half_close:
            writer.write_eof()
        async with asyncio.timeout(wire.TIMEOUT):
            return await reader.read()
    finally:
        writer.close()


def last_body(answer: bytes) -> dict[str, object]:
    """The JSON of the last answer on a connection."""
    found = json.loads(answer.rpartition(b"\r\n\r\n")[2])
    assert isinstance(found, dict)
    return found


class TestOffersToUpgrade:
    @pytest.mark.parametrize("offer", OFFERS)
    async def test_a_chat_is_answered_and_so_is_the_next(self, person: Person, offer: str) -> None:
        async with wire.Connection(person.port) as connection:
            for _ in range(2):
                connection.ask_json("/textModel/chat", person.call("hello"), OFFERS[offer])
                answer = await connection.answer()
                assert answer.status == 200
                assert answer.json()["code"] == 0
            connection.ask("GET", "/health", OFFERS[offer])
            assert (await connection.answer()).json()["status"] == "ok"

    async def test_so_is_a_stream_with_a_body_in_chunks(self, person: Person) -> None:
        body = json.dumps(person.call("hello")).encode()
        async with wire.Connection(person.port) as connection:
            headers = [("Transfer-Encoding", "chunked"), *OFFERS["h2c"]]
            connection.ask("POST", "/textModel/stream", headers, wire.chunked([body[:7], body[7:]]))
            answer = await connection.answer()
            assert answer.is_complete
            assert answer.frames()[-1]["header"]["status"] == 2

    @pytest.mark.parametrize("offer", OFFERS)
    async def test_bytes_of_a_body_are_never_run(self, server: LocalServer, offer: str) -> None:
        """Each place of a cut between two reads, and every byte by itself; the body is a request in itself."""
        asked = request("/auth/login", [("Host", "x"), *OFFERS[offer]], SMUGGLED)
        last = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        whole = asked + last
        cuts = [[whole[:place], whole[place:]] for place in range(1, len(whole), 5)]
        cuts += [[whole[n : n + 1] for n in range(len(whole))], [asked, last], [whole]]
        for answer in await asyncio.gather(*(exchange(server.port, *pieces) for pieces in cuts)):
            assert answer.count(b"HTTP/1.1 ") == 2, answer
            assert b"APP_NOT_FOUND_ERROR" not in answer
            assert last_body(answer)["status"] == "ok"

    async def test_nothing_is_tunnelled(self, server: LocalServer) -> None:
        answer = await exchange(server.port, b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", SMUGGLED)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.count(b"HTTP/1.1 ") == 1


class TestHost:
    @pytest.mark.parametrize("fields", [b"", b"Host: a\r\nHost: b\r\n", b"Host: a b\r\n"])
    async def test_none_two_or_nonsense_are_refused(self, server: LocalServer, fields: bytes) -> None:
        answer = await exchange(server.port, b"GET /health HTTP/1.1\r\n" + fields + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert last_body(answer)["code"] == "APP_QUERY_METHOD_ERROR"


class TestHttp10:
    async def test_a_chat(self, person: Person) -> None:
        body = json.dumps(person.call("hello")).encode()
        answer = await exchange(person.port, request("/textModel/chat", [], body, "1.0"))
        assert b"\r\nconnection: close\r\n" in answer
        assert last_body(answer)["code"] == 0

    @pytest.mark.parametrize("fields", [[], [("Connection", "keep-alive")], [("Accept", "text/event-stream")]])
    async def test_a_stream_comes_bare_and_ends_with_the_connection(
        self, person: Person, fields: list[tuple[str, str]]
    ) -> None:
        body = json.dumps(person.call("[[fault:frames n=30]]")).encode()
        answer = await exchange(person.port, request("/textModel/stream", fields, body, "1.0"))
        head, _, stream = answer.partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head
        lines = [line.removeprefix(b"data: ") for line in stream.splitlines() if line]
        assert len(lines) == 30
        assert json.loads(lines[-1])["header"]["status"] == 2

    async def test_the_connection_stays_where_that_is_asked_for(self, server: LocalServer) -> None:
        stay = b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
        answer = await exchange(server.port, stay + stay + b"GET /health HTTP/1.0\r\n\r\n")
        assert answer.count(b"HTTP/1.1 200 ") == 3
        assert answer.count(b"\r\nconnection: keep-alive\r\n") == 2
        assert answer.count(b"\r\nconnection: close\r\n") == 1


class TestHalfClosed:
    """As ``nc -N`` does: the request, the end of sending, and then the answer is awaited."""

    @pytest.mark.parametrize("version", ["1.0", "1.1"])
    async def test_an_answer_comes(self, person: Person, version: str) -> None:
        for path, body in (
            ("/textModel/chat", person.call("hello")),
            ("/auth/login", {"username": person.username, "password": person.password}),
        ):
            asked = request(path, [("Host", "x")], json.dumps(body).encode(), version)
            answer = await exchange(person.port, asked, half_close=True)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert last_body(answer)["code"] == 0

    @pytest.mark.parametrize("version", ["1.0", "1.1"])
    @pytest.mark.parametrize("path", ["/textModel/chat", "/textModel/stream"])
    async def test_a_slow_one_comes_whole(self, person: Person, path: str, version: str) -> None:
        asked = request(path, [("Host", "x")], json.dumps(person.call(STORY)).encode(), version)
        answer = await exchange(person.port, asked, half_close=True)
        if path == "/textModel/chat":
            assert last_body(answer)["code"] == 0
        else:
            assert answer.count(b'"choices":') == 20
        interim = answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ")
        assert interim is (version == "1.1" and path == "/textModel/chat")

    async def test_every_request_sent_before_is_answered(self, server: LocalServer) -> None:
        answer = await exchange(server.port, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 3, half_close=True)
        assert answer.count(b"HTTP/1.1 200 ") == 3

    @pytest.mark.parametrize("path", ["/textModel/chat", "/textModel/stream"])
    async def test_who_then_goes_is_gone(self, server: LocalServer, platform: Platform, path: str) -> None:
        person = await server.person()
        before = platform.counts("chat")
        asked = request(path, [("Host", "x")], json.dumps(person.call(STALL)).encode())
        reader, writer = await asyncio.open_connection("127.0.0.1", person.port)
        writer.write(asked)
        writer.write_eof()
        await eventually(lambda: platform.counts("chat")["seen"] == before["seen"] + 1, "the call reached the platform")
        async with asyncio.timeout(wire.TIMEOUT):
            assert await reader.readexactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert platform.counts("chat")["open"] == 1, "it may still be there"
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        await eventually(lambda: platform.counts("chat")["open"] == 0, "upstream's connection is closed")
        await server.settles()


class TestHead:
    @pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/health"])
    async def test_it_is_get_without_a_body(self, server: LocalServer, path: str) -> None:
        got = await wire.request(server.port, "GET", path)
        assert got.status == 200
        async with wire.Connection(server.port) as connection:
            connection.ask("HEAD", path)
            head = await connection.head()
            connection.ask("GET", "/health")
            assert (await connection.answer()).status == 200, "no body came"
        varying = {"date", "x-request-id"}
        assert [pair for pair in head.headers if pair[0] not in varying] == [
            pair for pair in got.headers if pair[0] not in varying
        ]
        assert head.status == 200
