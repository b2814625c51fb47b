"""Bodies and connections of many clients at once: memory stays bounded, and nobody is shut out by somebody else's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from system import wire
from system.harness import LocalServer, ServerProcess, eventually, open_account, with_other_secret
from system.samples import jpeg

MIB = 1024 * 1024
BUDGET = 64 * MIB
UPLOAD = 16 * MIB
DRIPPED = 6 * MIB
"""What each of the sixty sends swiftly: 360 MB in all."""

JSON = ("Content-Type", "application/json")


def resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


@asynccontextmanager
async def connected(port: int, source: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection from an address of one's choice on the loopback network."""
    plain = socket.socket()
    plain.setblocking(False)
    plain.bind((source, 0))
    await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=plain)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def drip(port: int, source: str) -> bytes:
    """Send a part of an upload at once, and a byte each moment for as long as the server takes it.

    Returns:
        The status line of what came back; empty: the server closed.
    """
    head = f"POST /voiceModel/chat HTTP/1.1\r\nHost: x\r\nContent-Length: {UPLOAD}\r\n\r\n"
    async with connected(port, source) as (reader, writer):
        answering = asyncio.ensure_future(reader.readline())
        with contextlib.suppress(ConnectionError):
            writer.write(head.encode())
            for _ in range(DRIPPED // (256 * 1024)):
                writer.write(bytes(256 * 1024))
                await writer.drain()
                if answering.done():
                    break
            while not answering.done():
                writer.write(b"x")
                await writer.drain()
                await asyncio.wait([answering], timeout=0.2)
        try:
            return await answering
        except ConnectionError:
            return b""


async def ask(
    port: int, source: str, method: str, path: str, headers: Sequence[wire.Header], body: bytes
) -> tuple[int, Any]:
    """Ask from an address of one's choice, and return the status and the JSON."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name}: {value!s}" for name, value in headers]
    async with connected(port, source) as (reader, writer):
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await writer.drain()
        async with asyncio.timeout(30):
            answer = await reader.read()
    head, _, content = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(content)


class TestSixtyDrips:
    """Sixty connections without a credential, each with 16 MB, against the real program."""

    async def test_memory_is_bounded_and_others_are_served(self, serve_command: Callable[..., ServerProcess]) -> None:
        server = await serve_command(
            {"AIPROJECT_RECEIVE_BUDGET_BYTES": str(BUDGET), "AIPROJECT_LOG_FORMAT": "json"}
        ).until_ready()
        person = await open_account(server.port, "honest")
        pid = server.process.pid
        before = resident_bytes(pid)
        drips = [asyncio.ensure_future(drip(server.port, "127.0.0.66")) for _ in range(60)]
        try:
            await eventually(lambda: sum(one.done() for one in drips) >= 40, "most are refused", seconds=60)
            assert resident_bytes(pid) - before < 3 * BUDGET
            for source in ("127.0.0.1", "127.0.0.2", "127.0.0.66"):
                status, said = await ask(
                    server.port, source, "POST", "/textModel/chat", [JSON], json.dumps(person.call("hi")).encode()
                )
                assert (status, said["code"]) == (200, 0), source
            for source in ("127.0.0.1", "127.0.0.2"):
                # Read to its end, and then seen to be no picture: the sandbox takes seconds to read one.
                status, said = await ask(
                    server.port, source, "POST", "/PictureToTextModel/chat", person.headers, bytes(9 * MIB)
                )
                assert (status, said["code"]) == (200, "FILE_FORMAT_ILLEGAL"), source
            assert resident_bytes(pid) - before < 4 * BUDGET
        finally:
            for one in drips:
                one.cancel()
            ended = await asyncio.gather(*drips, return_exceptions=True)
        refused = [one for one in ended if isinstance(one, bytes)]
        assert {line.split()[1] for line in refused if line} == {b"503"}
        assert [event for event in server.events() if event.get("level") == "error"] == []


class TestIdentityFirst:
    """Callers whom the headers already show to be nobody are refused before their body is kept."""

    @pytest.mark.parametrize(
        ("path", "credential", "status", "code"),
        [
            ("/PictureToTextModel/chat", "uuid", 200, "USER_NOT_FOUND"),
            ("/PictureToTextModel/chat", "key", 401, "NOT_SIGNED_IN"),
            ("/voiceModel/chat", "key", 401, "NOT_SIGNED_IN"),
            ("/textModel/chat", "key", 401, "NOT_SIGNED_IN"),
            ("/textModel/stream", "key", 401, "NOT_SIGNED_IN"),
        ],
    )
    async def test_the_body_is_not_asked_for(
        self, server: LocalServer, path: str, credential: str, status: int, code: str
    ) -> None:
        headers: Sequence[wire.Header] = [("uuid", "0" * 32), ("username", "nobody")]
        if credential == "key":
            headers = [("Authorization", f"Bearer {with_other_secret('sk-' + 'a' * 40)}")]
        async with wire.Connection(server.port) as connection:
            length = str(2 * MIB)
            connection.ask("POST", path, [*headers, ("Content-Length", length), ("Expect", "100-continue")])
            answer = await connection.answer()
        assert (answer.status, answer.json()["code"]) == (status, code)

    async def test_a_client_that_sends_all_before_it_reads_hears_why(self, server: LocalServer) -> None:
        async with wire.Connection(server.port) as connection:
            headers = [("uuid", "0" * 32), ("username", "nobody"), ("Connection", "close")]
            connection.ask("POST", "/PictureToTextModel/chat", headers, bytes(UPLOAD))
            await connection.flush()
            assert (await connection.answer()).json()["code"] == "USER_NOT_FOUND"
        await server.settles()


class TestConnections:
    async def test_an_address_cannot_hold_all(self, start_server: Callable[..., LocalServer]) -> None:
        server = start_server(limits="on", address_connections=3, max_connections=8)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(3):
                reader, writer = await stack.enter_async_context(connected(server.port, "127.0.0.66"))
                writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                assert b"200" in await reader.readline()
            reader, _ = await stack.enter_async_context(connected(server.port, "127.0.0.66"))
            answer = await asyncio.wait_for(reader.read(), 10)
            assert answer.startswith(b"HTTP/1.1 429 ")
            assert b"TOO_MANY_REQUESTS" in answer
            assert b"retry-after: 5" in answer
            assert await ask(server.port, "127.0.0.2", "GET", "/health", [], b"")
        await server.settles()
        assert (await ask(server.port, "127.0.0.66", "GET", "/health", [], b""))[0] == 200

    async def test_a_flood_of_refused_ones_takes_nobodys_place(self, start_server: Callable[..., LocalServer]) -> None:
        """Each may stay for two seconds to read why; most are closed without a word instead."""
        server = start_server(limits="on", address_connections=2, max_connections=4)
        async with contextlib.AsyncExitStack() as stack:
            flood = [await stack.enter_async_context(connected(server.port, "127.0.0.66")) for _ in range(60)]
            await eventually(lambda: server.connection_count() < 25, "most are closed")
            assert (await ask(server.port, "127.0.0.2", "GET", "/health", [], b""))[0] == 200
            assert len(flood) == 60
        await server.settles()

    async def test_a_trusted_proxy_may(self, start_server: Callable[..., LocalServer]) -> None:
        server = start_server(limits="on", address_connections=1, trusted_proxies=("127.0.0.0/8",))
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(5):
                reader, writer = await stack.enter_async_context(connected(server.port, "127.0.0.66"))
                writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                assert b"200" in await reader.readline()


class TestUploadsAtOnce:
    """They are counted by the client that a trusted proxy names."""

    async def test_a_client_behind_a_proxy_does_not_shut_out_another(
        self, start_server: Callable[..., LocalServer]
    ) -> None:
        server = start_server(limits="on", address_concurrent_uploads=1, trusted_proxies=("127.0.0.0/8",))
        person = await server.person()
        async with contextlib.AsyncExitStack() as stack:
            held = [await stack.enter_async_context(wire.Connection(server.port)) for _ in range(2)]
            for connection in held:
                headers = [("X-Forwarded-For", "192.0.2.66"), ("Content-Length", str(UPLOAD))]
                connection.ask("POST", "/voiceModel/chat", headers, bytes(MIB))
                await connection.flush()
            refused = await asyncio.wait(
                [asyncio.ensure_future(connection.answer()) for connection in held],
                return_when=asyncio.FIRST_COMPLETED,
                timeout=10,
            )
            (answer,) = (one.result() for one in refused[0])
            assert answer.json()["code"] == "TOO_MANY_REQUESTS"
            assert answer.header("retry-after") == "1"
            other = await person.picture(jpeg() + bytes(MIB), ("X-Forwarded-For", "192.0.2.67"))
            assert other.json()["code"] == 0
            for one in refused[1]:
                one.cancel()
