"""Senders that take their time, say too much beside a body, or are no HTTP at all: each is told so and let go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from system import wire
from system.harness import LocalServer

PATIENCE = 0.4
"""Seconds of `body_timeout` here."""

JSON = ("Content-Type", "application/json")
ROUTES = [
    "/auth/register",
    "/auth/login",
    "/textModel/chat",
    "/textModel/stream",
    "/voiceModel/chat",
    "/PictureToTextModel/chat",
    "/user/get_token",
]


@pytest.fixture
def impatient(start_server: Callable[..., LocalServer]) -> LocalServer:
    return start_server(body_timeout=PATIENCE)


async def told_and_closed(connection: wire.Connection, status: int, code: str) -> None:
    answer = await connection.answer()
    assert answer.status == status
    assert answer.json()["code"] == code
    assert answer.json()["msg"]
    assert answer.header("connection") == "close"
    assert answer.header("x-content-type-options") == "nosniff"
    assert await connection.is_closed()


async def dribble(connection: wire.Connection, pieces: AsyncIterator[bytes]) -> None:
    async for piece in pieces:
        connection.send(piece)
        await connection.flush()


async def every(seconds: float, piece: bytes, *, times: int) -> AsyncIterator[bytes]:
    for _ in range(times):
        await asyncio.sleep(seconds)
        yield piece


class TestBodies:
    @pytest.mark.parametrize("path", ROUTES)
    async def test_one_that_stops_coming_is_told_408(self, impatient: LocalServer, path: str) -> None:
        person = await impatient.person()
        async with wire.Connection(impatient.port) as connection:
            connection.ask("POST", path, [JSON, *person.headers, ("Content-Length", "100")], b'{"uuid":')
            began = time.monotonic()
            await told_and_closed(connection, 408, "REQUEST_TIMEOUT")
        assert PATIENCE * 0.9 < time.monotonic() - began < PATIENCE + 2
        await impatient.settles()

    async def test_one_in_chunks_without_progress_is_told_408(self, impatient: LocalServer) -> None:
        async with wire.Connection(impatient.port) as connection:
            connection.ask("POST", "/auth/login", [JSON, ("Transfer-Encoding", "chunked")], b"1\r\n{\r\n1;")
            # Bytes of a chunk's extension are no bytes of a body.
            extending = asyncio.create_task(dribble(connection, every(0.1, b"x", times=20)))
            await told_and_closed(connection, 408, "REQUEST_TIMEOUT")
            extending.cancel()

    async def test_one_byte_at_a_time_does_not_hold_a_place(self, impatient: LocalServer) -> None:
        """Never silent as long as the limit, but slower than the smallest rate."""
        person = await impatient.person()
        async with wire.Connection(impatient.port) as connection:
            headers = [*person.headers, ("Content-Length", str(16 * 1024 * 1024))]
            connection.ask("POST", "/PictureToTextModel/chat", headers, b"\xff")
            began = time.monotonic()
            sending = asyncio.create_task(dribble(connection, every(PATIENCE / 4, b"\xff", times=100)))
            await told_and_closed(connection, 408, "REQUEST_TIMEOUT")
            sending.cancel()
        assert time.monotonic() - began < PATIENCE * 3
        await impatient.settles()

    async def test_a_slow_one_above_the_rate_is_served(self, impatient: LocalServer) -> None:
        person = await impatient.person()
        body = b" " * 20_000
        async with wire.Connection(impatient.port) as connection:
            connection.ask("POST", "/textModel/chat", [JSON, ("Content-Length", str(len(body) + 2))])
            began = time.monotonic()
            await dribble(connection, every(PATIENCE / 2, body[:4000], times=5))
            connection.send(b"{}")
            answer = await connection.answer()
        assert time.monotonic() - began > PATIENCE * 2
        assert answer.status == 200
        assert answer.json()["code"] == "MODEL_ERROR"
        assert (await person.chat("hi")).json()["code"] == 0

    async def test_one_that_nobody_reads_ends_with_the_connection(self, impatient: LocalServer) -> None:
        async with wire.Connection(impatient.port) as connection:
            connection.ask("GET", "/health", [("Content-Length", "1000000")], b"x")
            assert (await connection.answer()).status == 200
            sending = asyncio.create_task(dribble(connection, every(PATIENCE / 4, b"x", times=100)))
            began = time.monotonic()
            assert await connection.is_closed()
            assert time.monotonic() - began < PATIENCE * 3
            sending.cancel()
        await impatient.settles()

    @pytest.mark.parametrize("path", [*ROUTES, "/nowhere"])
    @pytest.mark.parametrize(
        "header",
        [("Content-Encoding", "gzip"), ("Content-Encoding", "br, identity"), ("Transfer-Encoding", "gzip, chunked")],
    )
    async def test_packed_ones_are_told_415(self, server: LocalServer, path: str, header: wire.Header) -> None:
        async with wire.Connection(server.port) as connection:
            body = b"0\r\n\r\n" if header[0] == "Transfer-Encoding" else b"\x1f\x8b\x08"
            connection.ask("POST", path, [JSON, header], body)
            answer = await connection.answer()
            assert answer.status == 415
            assert answer.json()["code"] == "UNSUPPORTED_ENCODING"
            assert answer.header("accept-encoding") == "identity"
            assert answer.header("connection") == "close"
            assert await connection.is_closed()

    async def test_identity_is_no_encoding(self, server: LocalServer) -> None:
        answer = await wire.request(server.port, "POST", "/auth/login", [JSON, ("Content-Encoding", "identity")], b"{}")
        assert answer.status == 200


class TestHeads:
    async def test_one_that_comes_slowly_is_told_408(self, impatient: LocalServer) -> None:
        async with wire.Connection(impatient.port) as connection:
            connection.send(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            began = time.monotonic()
            sending = asyncio.create_task(dribble(connection, every(PATIENCE / 4, b"x", times=100)))
            await told_and_closed(connection, 408, "REQUEST_TIMEOUT")
            sending.cancel()
        assert time.monotonic() - began < PATIENCE * 3
        await impatient.settles()

    async def test_a_second_one_on_the_connection_is_no_slower(self, impatient: LocalServer) -> None:
        async with wire.Connection(impatient.port) as connection:
            connection.ask("GET", "/health")
            assert (await connection.answer()).status == 200
            sending = asyncio.create_task(dribble(connection, every(PATIENCE / 4, b"\r\n", times=100)))
            began = time.monotonic()
            assert await connection.is_closed()
            assert time.monotonic() - began < PATIENCE * 3
            sending.cancel()

    async def test_who_says_nothing_is_let_go_without_a_word(self, impatient: LocalServer) -> None:
        async with wire.Connection(impatient.port) as connection:
            assert await connection.is_closed()
        await impatient.settles()

    async def test_who_is_idle_between_requests_is_not_cut(self, impatient: LocalServer) -> None:
        async with wire.Connection(impatient.port) as connection:
            for _ in range(2):
                connection.ask("GET", "/health")
                assert (await connection.answer()).status == 200
                await asyncio.sleep(PATIENCE * 1.5)
            connection.ask("GET", "/health")
            assert (await connection.answer()).status == 200

    @pytest.mark.parametrize(
        "head",
        [
            b"X-Long: " + b"x" * 40_000 + b"\r\n",
            b"".join(b"X-%d: x\r\n" % number for number in range(120)),
        ],
        ids=["long", "many"],
    )
    async def test_too_much_is_told_431(self, server: LocalServer, head: bytes) -> None:
        async with wire.Connection(server.port) as connection:
            connection.send(b"GET /health HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n")
            await told_and_closed(connection, 431, "APP_QUERY_METHOD_ERROR")
        await server.settles()

    async def test_without_an_end_it_is_not_kept(self, server: LocalServer) -> None:
        async with wire.Connection(server.port) as connection:
            connection.send(b"GET /health HTTP/1.1\r\nX-Long: ")
            endless = asyncio.create_task(dribble(connection, every(0, b"x" * 60_000, times=10_000)))
            await told_and_closed(connection, 431, "APP_QUERY_METHOD_ERROR")
            endless.cancel()

    @pytest.mark.parametrize(
        "junk",
        [
            b"\x16\x03\x01\x02\x00\x01\x00",
            b"GET\r\n\r\n",
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
            b"CONNECT evil.example:443 HTTP/1.1\r\nHost: x\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ],
    )
    async def test_what_is_no_http_is_told_400_in_json(self, server: LocalServer, junk: bytes) -> None:
        async with wire.Connection(server.port) as connection:
            connection.send(junk)
            await told_and_closed(connection, 400, "APP_QUERY_METHOD_ERROR")


@pytest.mark.parametrize("ahead", [b"", b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["alone", "behind another"])
async def test_nonsense_behind_a_running_answer_is_not_told_inside_it(server: LocalServer, ahead: bytes) -> None:
    person = await server.person()
    async with wire.Connection(server.port) as connection:
        connection.ask_json("/textModel/stream", person.call("hi [[fault:slow seconds=0.05]] [[fault:frames n=20]]"))
        answer = await connection.head()
        assert await connection.chunk(answer)
        connection.send(ahead + b"nonsense\r\n\r\n")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await read_to_its_end(connection, answer)
    assert all(chunk.data.startswith(b'{"header"') for chunk in answer.chunks)
    assert (await person.chat("hi")).json()["code"] == 0


async def read_to_its_end(connection: wire.Connection, answer: wire.Answer) -> None:
    while await connection.chunk(answer):
        pass


class TestTrailers:
    async def test_they_are_nobodys_name(self, server: LocalServer) -> None:
        """A header that comes behind the body must not become one of the request's."""
        person = await server.person()
        async with wire.Connection(server.port) as connection:
            headers = [("Transfer-Encoding", "chunked"), ("Content-Type", "image/jpeg")]
            connection.ask("POST", "/PictureToTextModel/chat", headers, b"3\r\n\xff\xd8\xff\r\n0\r\n")
            trailers = "".join(f"{name}: {value!s}\r\n" for name, value in person.headers)
            connection.send(trailers.encode() + b"\r\n")
            assert (await connection.answer()).json()["code"] == "USER_NOT_FOUND"

    async def test_without_an_end_they_are_cut(self, server: LocalServer) -> None:
        async with wire.Connection(server.port) as connection:
            connection.ask("POST", "/auth/login", [JSON, ("Transfer-Encoding", "chunked")], b"2\r\n{}\r\n0\r\nX-Long: ")
            endless = asyncio.create_task(dribble(connection, every(0, b"x" * 60_000, times=10_000)))
            await told_and_closed(connection, 400, "APP_QUERY_METHOD_ERROR")
            endless.cancel()
        await server.settles()

    async def test_a_body_in_the_smallest_chunks_is_read(self, server: LocalServer) -> None:
        body = b" " * 60_000 + b"{}"
        chunks = wire.chunked([body[n : n + 1] for n in range(len(body))])
        headers = [JSON, ("Transfer-Encoding", "chunked")]
        answer = await wire.request(server.port, "POST", "/textModel/chat", headers, chunks)
        assert answer.json()["code"] == "MODEL_ERROR"


async def test_more_connections_than_places_are_told_503(start_server: Callable[..., Any]) -> None:
    server = start_server(max_connections=2)
    async with wire.Connection(server.port) as first, wire.Connection(server.port) as second:
        for connection in (first, second):
            connection.ask("GET", "/health")
            assert (await connection.answer()).status == 200
        async with wire.Connection(server.port) as third:
            await told_and_closed(third, 503, "SERVICE_UNAVAILABLE")
        first.ask("GET", "/health")
        assert (await first.answer()).status == 200
    await server.settles()
    assert (await wire.request(server.port, "GET", "/health")).status == 200
