"""The outgoing websocket adapter against real servers on the loopback; raw bytes where one has to misbehave."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import hashlib
import ipaddress
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import uvloop
import websockets
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from aiproject.adapters.net.dialer import Dialer
from aiproject.adapters.net.websocket import MAX_QUEUED_BYTES, ConnectionEnded, WebSocketConnection, connect
from aiproject.errors import UpstreamTimeout, UpstreamUnreachable
from aiproject.protocols.websocket.frames import MAX_MESSAGE_BYTES

SECRET = "signature-that-nobody-may-read"
LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


@pytest.fixture(scope="module", autouse=True)
def _quick_collection() -> Iterator[None]:
    """What was there before these tests need not be looked at in each of their collections."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
async def _no_complaints_of_the_loop() -> AsyncIterator[None]:
    """No future's exception goes unretrieved, no callback fails."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    yield
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []


def port_of(server: Server | asyncio.Server) -> int:
    return int(next(iter(server.sockets)).getsockname()[1])


@contextlib.asynccontextmanager
async def websocket_server(
    handler: Callable[[ServerConnection], Awaitable[None]], **options: Any
) -> AsyncIterator[int]:
    async with serve(handler, "127.0.0.1", 0, compression=None, close_timeout=1, **options) as server:
        yield port_of(server)


@contextlib.asynccontextmanager
async def raw_server(
    handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    handlers: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await handler(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    def start(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.create_task(handle(reader, writer)))

    server = await asyncio.start_server(start, "127.0.0.1", 0)
    try:
        yield port_of(server)
    finally:
        server.close()
        await server.wait_closed()
        # Each test's client has left by now, so the handlers end by themselves.
        _, lingering = await asyncio.wait(handlers, timeout=2) if handlers else (None, handlers)
        assert not lingering


@contextlib.asynccontextmanager
async def connected(port: int, *, timeout: float = 5.0) -> AsyncIterator[WebSocketConnection]:
    connection = await connect(f"ws://127.0.0.1:{port}/v3.5/chat?s={SECRET}", timeout=timeout, ssl_context=None)
    try:
        yield connection
    finally:
        connection.close()


async def refusal_of(port: int, *, timeout: float = 5.0) -> UpstreamUnreachable:
    with pytest.raises(UpstreamUnreachable) as caught:
        await connect(f"ws://127.0.0.1:{port}/chat?signature={SECRET}", timeout=timeout, ssl_context=None)
    assert SECRET not in f"{caught.value} {caught.value!r} {caught.value.detail}"
    return caught.value


async def accept_upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The server's half of an opening handshake, so that what follows can be any bytes."""
    request = await reader.readuntil(b"\r\n\r\n")
    key = next(
        line.partition(b":")[2].strip()
        for line in request.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key:")
    )
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())  # noqa: S324
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    await writer.drain()


async def ended(connection: WebSocketConnection, *, timeout: float = 5.0) -> ConnectionEnded:
    with pytest.raises(ConnectionEnded) as caught:
        await connection.receive(timeout)
    return caught.value


class Certificate:
    """A certificate for this machine that signs itself, and the two contexts that it takes."""

    def __init__(self, folder: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = folder / "server.pem"
        path.write_bytes(pem + secret)
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(path)
        self.client = ssl.create_default_context(cadata=pem.decode())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("tls"))


class TestMessages:
    async def test_both_directions(self) -> None:
        async def echo(ws: ServerConnection) -> None:
            async for message in ws:
                assert isinstance(message, str)  # the platform takes text frames only
                await ws.send(message)

        async with websocket_server(echo) as port, connected(port) as connection:
            for text in ("", "你好", "x" * 70_000):
                connection.send(text.encode())
                await connection.drain()
                assert await connection.receive(5) == text.encode()
            assert connection.is_open

    async def test_binary_and_fragmented_messages_come_whole(self) -> None:
        async def talk(ws: ServerConnection) -> None:
            await ws.send(b"\x00\xff")
            await ws.send(["一", "", "二" * 5000, "三"])
            await ws.ping()
            await ws.send("after")
            await ws.wait_closed()

        async with websocket_server(talk) as port, connected(port) as connection:
            received = [await connection.receive(5) for _ in range(3)]
        assert received == [b"\x00\xff", ("一" + "二" * 5000 + "三").encode(), b"after"]

    async def test_a_ping_between_fragments_is_answered_and_lost_on_nobody(self) -> None:
        pong = asyncio.get_running_loop().create_future()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await accept_upgrade(reader, writer)
            writer.write(b"\x01\x02ab" + b"\x89\x01?" + b"\x80\x02cd")
            pong.set_result(await reader.readexactly(7))
            await reader.read()

        async with raw_server(talk) as port, connected(port) as connection:
            assert await connection.receive(5) == b"abcd"
            async with asyncio.timeout(5):
                assert (await pong)[0] == 0x8A

    async def test_ping_is_answered(self) -> None:
        answered = asyncio.Event()

        async def talk(ws: ServerConnection) -> None:
            await (await ws.ping())
            answered.set()
            await ws.wait_closed()

        async with websocket_server(talk) as port, connected(port):
            async with asyncio.timeout(5):
                await answered.wait()

    @pytest.mark.parametrize("fragments", [1, 4])
    async def test_a_message_over_the_limit_ends_the_connection(self, fragments: int) -> None:
        size = MAX_MESSAGE_BYTES // fragments + 1000

        async def flood(ws: ServerConnection) -> None:
            await ws.send("small")
            with contextlib.suppress(websockets.ConnectionClosed):
                await ws.send("x" * size if fragments == 1 else ["x" * size] * fragments)
                await ws.wait_closed()

        async with websocket_server(flood) as port, connected(port) as connection:
            assert await connection.receive(5) == b"small"
            assert (await ended(connection)).code == 1009
            assert not connection.is_open

    async def test_the_largest_message_passes(self) -> None:
        async def talk(ws: ServerConnection) -> None:
            await ws.send(b"x" * MAX_MESSAGE_BYTES)
            await ws.send([b"y" * (MAX_MESSAGE_BYTES // 2)] * 2)
            await ws.wait_closed()

        async with websocket_server(talk) as port, connected(port) as connection:
            assert len(await connection.receive(5)) == MAX_MESSAGE_BYTES
            assert len(await connection.receive(5)) == MAX_MESSAGE_BYTES

    @pytest.mark.parametrize(
        "junk",
        [
            b"\x83\x01x",
            b"\xc1\x01x",
            b"\x80\x01x",
            b"\x01\x01x\x81\x01y",
            b"\x89\x7e\x00\x80" + b"x" * 128,
            b"\x81\x81\x00\x00\x00\x00x",
            b"\x01\x00" + b"\x00\x00" * 20_000,
        ],
        ids=["opcode", "reserved bit", "continuation of nothing", "interleaved", "long ping", "masked", "empty ones"],
    )
    async def test_what_is_no_websocket_frame_ends_the_connection(self, junk: bytes) -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await accept_upgrade(reader, writer)
            writer.write(b"\x81\x02ok" + junk)
            await reader.read()

        async with raw_server(talk) as port, connected(port) as connection:
            assert await connection.receive(5) == b"ok"
            assert (await ended(connection)).code in (1002, 1009)

    async def test_a_breach_that_nobody_stays_to_hear_of(self) -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await accept_upgrade(reader, writer)
            writer.write(b"\x81\x02ok" + b"\x83\x01x")
            await reader.read()

        async with raw_server(talk) as port, connected(port) as connection:
            gone = asyncio.Event()
            connection.when_disconnected(gone.set)
            assert await connection.receive(5) == b"ok"
            connection.close()
            async with asyncio.timeout(5):
                await gone.wait()


class TestEnd:
    async def test_close_with_code_and_reason(self) -> None:
        async def talk(ws: ServerConnection) -> None:
            await ws.send("last words")
            await ws.close(1008, "用完了")

        async with websocket_server(talk) as port, connected(port) as connection:
            assert await connection.receive(5) == b"last words"
            end = await ended(connection)
            assert (end.code, end.reason) == (1008, "用完了")
            assert str(end) == "websocket ended: 1008 用完了"
            with pytest.raises(ConnectionEnded):
                connection.send(b"too late")

    async def test_close_without_a_code(self) -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await accept_upgrade(reader, writer)
            writer.write(b"\x88\x00")
            await reader.read()

        async with raw_server(talk) as port, connected(port) as connection:
            assert (await ended(connection)).code == 1005

    @pytest.mark.parametrize("how", ["end", "reset"])
    async def test_an_end_without_goodbye_is_1006_after_what_was_read(self, how: str) -> None:
        async def talk(ws: ServerConnection) -> None:
            await ws.send("half")
            await asyncio.sleep(0.05)
            if how == "end":
                ws.transport.close()
            else:
                ws.transport.abort()

        async with websocket_server(talk) as port, connected(port) as connection:
            await asyncio.sleep(0.1)
            assert await connection.receive(5) == b"half"
            assert (await ended(connection)).code == 1006

    async def test_words_that_come_with_the_handshake_are_heard_to_the_end(self) -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await accept_upgrade(reader, writer)
            writer.write(b"\x81\x02no" + b"\x88\x02\x03\xf0")
            await writer.drain()

        async with raw_server(talk) as port, connected(port) as connection:
            await asyncio.sleep(0.05)
            assert await connection.receive(5) == b"no"
            assert (await ended(connection)).code == 1008

    async def test_our_close_says_goodbye_and_may_be_repeated(self) -> None:
        codes: list[int | None] = []

        async def listen(ws: ServerConnection) -> None:
            await ws.wait_closed()
            codes.append(ws.close_code)

        async with websocket_server(listen) as port, connected(port) as connection:
            gone = asyncio.Event()
            connection.when_disconnected(gone.set)
            connection.close()
            connection.close()
            assert not connection.is_open
            async with asyncio.timeout(5):
                await gone.wait()
            assert (await ended(connection)).code == 1000
        assert codes == [1000]

    @pytest.mark.serial
    async def test_abort_wakes_the_reader_with_its_reason(self) -> None:
        class Reason(Exception):
            pass

        async def listen(ws: ServerConnection) -> None:
            await ws.send("never read")
            await ws.wait_closed()

        async with websocket_server(listen) as port, connected(port) as connection:
            assert await connection.receive(5) == b"never read"
            reading = asyncio.create_task(connection.receive(30))
            await asyncio.sleep(0.01)
            began = time.monotonic()
            connection.abort(Reason())
            with pytest.raises(Reason):
                await reading
            with pytest.raises(Reason):
                await connection.receive(30)
            with pytest.raises(Reason):
                connection.send(b"x")
            assert time.monotonic() - began < 1

    async def test_abort_drops_what_is_queued(self) -> None:
        async def talk(ws: ServerConnection) -> None:
            await ws.send("queued")
            await ws.wait_closed()

        async with websocket_server(talk) as port, connected(port) as connection:
            await asyncio.sleep(0.05)
            connection.abort(RuntimeError("enough"))
            with pytest.raises(RuntimeError, match="enough"):
                await connection.receive(5)

    async def test_abort_after_the_peer_closed_tells_our_reason(self) -> None:
        async def talk(ws: ServerConnection) -> None:
            await ws.close()

        async with websocket_server(talk) as port, connected(port) as connection:
            assert (await ended(connection)).code == 1000
            connection.abort(RuntimeError("ours"))
            with pytest.raises(RuntimeError, match="ours"):
                await connection.receive(5)


class TestTimers:
    @pytest.mark.serial
    async def test_silence_is_a_timeout_and_the_connection_lives_on(self) -> None:
        async def talk(ws: ServerConnection) -> None:
            await ws.recv()
            await ws.send("answer")
            await ws.wait_closed()

        async with websocket_server(talk) as port, connected(port) as connection:
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                await connection.receive(0.1)
            assert 0.09 < time.monotonic() - began < 1
            connection.send(b"now")
            assert await connection.receive(5) == b"answer"

    @pytest.mark.serial
    async def test_each_wait_has_its_own_limit(self) -> None:
        async def talk(ws: ServerConnection) -> None:
            for _ in range(4):
                await asyncio.sleep(0.1)
                await ws.send("tick")
            await ws.wait_closed()

        async with websocket_server(talk) as port, connected(port) as connection:
            for _ in range(4):  # together longer than the limit of each
                assert await connection.receive(0.3) == b"tick"
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                await connection.receive(0.1)  # shorter than what is left of the timer before
            assert time.monotonic() - began < 0.25
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                await connection.receive(0.3)  # longer
            assert 0.29 < time.monotonic() - began < 1

    async def test_a_cancelled_reader_leaves_nothing_behind(self) -> None:
        async def talk(ws: ServerConnection) -> None:
            await ws.recv()
            await ws.send("still here")
            await ws.wait_closed()

        async with websocket_server(talk) as port, connected(port) as connection:
            reading = asyncio.create_task(connection.receive(0.1))
            await asyncio.sleep(0.01)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            await asyncio.sleep(0.15)  # its timer goes off with nobody waiting
            connection.send(b"x")
            assert await connection.receive(5) == b"still here"


class TestBackPressure:
    @LOOPS
    def test_a_slow_reader_holds_the_sender_back_and_loses_nothing(
        self, new_loop: Callable[[], asyncio.AbstractEventLoop]
    ) -> None:
        total, size, sent = 8000, 4096, 0
        bound = MAX_QUEUED_BYTES + 8 * 1024 * 1024  # what one reading may bring on top

        async def flood(ws: ServerConnection) -> None:
            nonlocal sent
            for number in range(total):
                await ws.send(b"%08d" % number + b"x" * (size - 8))
                sent = number + 1
            await ws.close()

        async def scenario() -> None:
            async with websocket_server(flood) as port, connected(port) as connection:
                await asyncio.sleep(0.3)
                assert connection._reader.size < bound
                held_back_at = sent
                await asyncio.sleep(0.1)
                assert sent == held_back_at < total  # the socket's buffers are full and nobody reads
                for number in range(total):
                    message = await connection.receive(5)
                    assert message[:8] == b"%08d" % number
                    assert connection._reader.size < bound
                assert (await ended(connection)).code == 1000

        run(scenario(), new_loop)

    @LOOPS
    @pytest.mark.parametrize("is_secure", [False, True])
    def test_closing_while_reading_is_paused_lets_go_of_the_socket(
        self, new_loop: Callable[[], asyncio.AbstractEventLoop], is_secure: bool, certificate: Certificate
    ) -> None:
        left = asyncio.Event()

        async def flood(ws: ServerConnection) -> None:
            with contextlib.suppress(websockets.ConnectionClosed):
                while True:
                    await ws.send(b"x" * 65536)
            left.set()

        async def scenario() -> None:
            server, client = (certificate.server, certificate.client) if is_secure else (None, None)
            async with websocket_server(flood, ssl=server) as port:
                url = f"{'wss' if is_secure else 'ws'}://127.0.0.1:{port}/"
                connection = await connect(url, timeout=5, ssl_context=client)
                gone = asyncio.Event()
                connection.when_disconnected(gone.set)
                await asyncio.sleep(0.2)
                assert connection._paused
                connection.abort(RuntimeError("the client hung up"))
                async with asyncio.timeout(3):
                    await gone.wait()
                    await left.wait()

        run(scenario(), new_loop)

    @LOOPS
    def test_drain_waits_for_a_peer_that_does_not_read(self, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        async def scenario() -> None:
            reads, all_read = asyncio.Event(), asyncio.Event()
            received = 0

            async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                nonlocal received
                await accept_upgrade(reader, writer)
                await reads.wait()
                while piece := await reader.read(1 << 20):
                    received += len(piece)
                    if received > 300 * 65536:
                        all_read.set()

            async with raw_server(listen) as port, connected(port) as connection:
                pushed = 0

                async def push() -> None:
                    nonlocal pushed
                    for _ in range(300):
                        connection.send(b"x" * 65536)
                        await connection.drain()
                        pushed += 1

                pushing = asyncio.create_task(push())
                await asyncio.sleep(0.3)
                assert 0 < pushed < 300
                reads.set()
                async with asyncio.timeout(5):
                    await pushing
                connection.close()
                async with asyncio.timeout(5):
                    await all_read.wait()

        run(scenario(), new_loop)

    async def test_drain_ends_when_the_connection_does(self) -> None:
        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await accept_upgrade(reader, writer)
            await asyncio.sleep(0.2)
            writer.transport.abort()

        async with raw_server(hang_up) as port, connected(port) as connection:

            async def push() -> None:
                while True:
                    connection.send(b"x" * 65536)
                    await connection.drain()

            with pytest.raises(ConnectionEnded):
                await asyncio.wait_for(push(), 5)


def run(scenario: Coroutine[Any, Any, None], new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    complaints: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: complaints.append(context))
        runner.run(scenario)
        gc.collect()
    assert complaints == []


class TestHandshake:
    @pytest.mark.parametrize(
        ("status", "is_retryable"), [(401, False), (403, False), (404, False), (500, True), (502, True), (503, True)]
    )
    async def test_a_refusal_tells_status_date_and_body(self, status: int, is_retryable: bool) -> None:
        date = "Tue, 24 Nov 2020 09:00:00 GMT"

        def refuse(ws: ServerConnection, request: Request) -> Response:
            headers = Headers({"Date": date, "Content-Type": "text/plain", "Connection": "close"})
            return Response(HTTPStatus(status).value, "no", headers, b'{"message":"HMAC signature\n does not match"}')

        async with websocket_server(_unreachable, process_request=refuse) as port:
            error = await refusal_of(port)
        assert (error.status, error.server_date, error.retryable) == (status, date, is_retryable)
        assert error.detail == f'handshake refused with HTTP {status}: {{"message":"HMAC signature does not match"}}'

    async def test_a_refusal_with_an_endless_body_is_bounded(self) -> None:
        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 1000000000\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(b"\x1b[31m" * 1000)
                    await writer.drain()
                    await asyncio.sleep(0.001)

        async with raw_server(refuse) as port:
            with pytest.raises((UpstreamUnreachable, UpstreamTimeout)) as caught:
                await connect(f"ws://127.0.0.1:{port}/", timeout=0.5, ssl_context=None)
            assert len(str(caught.value)) < 400

    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    async def test_a_redirect_is_not_followed(self, status: int) -> None:
        visited: list[str] = []

        async def elsewhere(ws: ServerConnection) -> None:
            visited.append("elsewhere")

        async with websocket_server(elsewhere) as target:

            def redirect(ws: ServerConnection, request: Request) -> Response:
                headers = Headers({"Location": f"ws://127.0.0.1:{target}/?s={SECRET}", "Connection": "close"})
                return Response(status, "moved", headers, b"")

            async with websocket_server(_unreachable, process_request=redirect) as port:
                error = await refusal_of(port)
        assert error.status == status
        assert visited == []

    @pytest.mark.parametrize(
        "answer", [b"", b"SSH-2.0-OpenSSH_9\r\n\r\n", b"HTTP/1.1 101"], ids=["none", "ssh", "half"]
    )
    async def test_a_peer_that_hangs_up(self, answer: bytes) -> None:
        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()

        async with raw_server(hang_up) as port:
            assert (await refusal_of(port)).retryable

    async def test_a_wrong_accept_key(self) -> None:
        async def forge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n"
            )
            await writer.drain()
            await reader.read()

        async with raw_server(forge) as port:
            assert "handshake failed" in (await refusal_of(port)).detail

    @pytest.mark.serial
    async def test_silence_runs_into_the_limit_and_the_socket_is_given_back(self) -> None:
        hung_up = asyncio.Event()

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await reader.read()
            hung_up.set()

        async with raw_server(listen) as port:
            began = time.monotonic()
            with pytest.raises(UpstreamTimeout) as caught:
                await connect(f"ws://127.0.0.1:{port}/?s={SECRET}", timeout=0.2, ssl_context=None)
            assert 0.19 < time.monotonic() - began < 1
            async with asyncio.timeout(3):
                await hung_up.wait()
        assert (caught.value.phase, caught.value.seconds, caught.value.retryable) == ("connect", 0.2, True)
        assert SECRET not in str(caught.value)

    async def test_cancelling_gives_the_socket_back(self) -> None:
        """A client that hangs up while we connect must not leave half a connection."""
        asked, hung_up = asyncio.Event(), asyncio.Event()

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            await reader.read()
            hung_up.set()

        async with raw_server(listen) as port:
            connecting = asyncio.create_task(connect(f"ws://127.0.0.1:{port}/", timeout=0.3, ssl_context=None))
            await asked.wait()
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            async with asyncio.timeout(3):
                await hung_up.wait()

    @LOOPS
    @pytest.mark.parametrize("how", ["cancelled", "limit"])
    @pytest.mark.parametrize("way", ["number", "name", "tls", "name and tls"])
    def test_whatever_it_waits_for_the_socket_is_given_back(
        self, way: str, how: str, new_loop: Callable[[], asyncio.AbstractEventLoop]
    ) -> None:
        async def scenario() -> None:
            asked, hung_up = asyncio.Event(), asyncio.Event()

            async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await reader.read(1)
                asked.set()
                while await reader.read(1000):
                    pass
                hung_up.set()

            async with raw_server(listen) as port:
                host = "localhost" if "name" in way else "127.0.0.1"
                url = f"{'wss' if 'tls' in way else 'ws'}://{host}:{port}/"
                limit = 0.3 if how == "limit" else 30.0
                connecting = asyncio.create_task(connect(url, timeout=limit, ssl_context=None, dialer=Dialer()))
                async with asyncio.timeout(3):
                    await asked.wait()
                if how == "cancelled":
                    connecting.cancel()
                with pytest.raises(asyncio.CancelledError if how == "cancelled" else UpstreamTimeout):
                    await connecting
                async with asyncio.timeout(3):
                    await hung_up.wait()

        run(scenario(), new_loop)

    @LOOPS
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_cancelled_at_any_step_it_leaves_nothing(
        self, host: str, new_loop: Callable[[], asyncio.AbstractEventLoop]
    ) -> None:
        """A caller may leave in each turn of the loop, also in the one in which the connection opens."""

        async def scenario() -> None:
            opened, ended = 0, 0

            async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                nonlocal opened, ended
                opened += 1
                try:
                    await accept_upgrade(reader, writer)
                    await reader.read()
                except asyncio.IncompleteReadError:
                    pass
                finally:
                    ended += 1

            async with raw_server(talk) as port:
                dialer = Dialer()
                # Looked up once, in a thread that takes its time: what follows happens in turns of the loop alone.
                (await connect(f"ws://{host}:{port}/", timeout=5, ssl_context=None, dialer=dialer)).close()
                for turns in range(40):
                    connecting = asyncio.create_task(
                        connect(f"ws://{host}:{port}/", timeout=5, ssl_context=None, dialer=dialer)
                    )
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    connecting.cancel()
                    try:
                        (await connecting).close()
                    except asyncio.CancelledError:
                        assert connecting.cancelled()
            # The server has seen each of them go.
            assert opened == ended > 0

        run(scenario(), new_loop)

    async def test_nobody_listens(self) -> None:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = port_of(server)
        server.close()
        await server.wait_closed()
        error = await refusal_of(port)
        assert (error.status, error.retryable) == (None, True)

    async def test_no_such_host(self) -> None:
        with pytest.raises(UpstreamUnreachable) as caught:
            await connect(f"ws://nobody.invalid/?s={SECRET}", timeout=5, ssl_context=None)
        assert SECRET not in str(caught.value)


async def _unreachable(ws: ServerConnection) -> None:
    raise AssertionError("the handshake was to be refused")


class TestTls:
    async def test_an_untrusted_certificate_is_refused(self, certificate: Certificate) -> None:
        async with websocket_server(_unreachable, ssl=certificate.server) as port:
            for context in (None, ssl.create_default_context()):
                with pytest.raises(UpstreamUnreachable) as caught:
                    await connect(f"wss://127.0.0.1:{port}/?s={SECRET}", timeout=5, ssl_context=context)
                assert "CERTIFICATE_VERIFY_FAILED" in caught.value.detail
                assert SECRET not in str(caught.value)
                assert not caught.value.retryable

    async def test_a_trusted_one_for_another_name_is_refused(self, certificate: Certificate) -> None:
        async with websocket_server(_unreachable, ssl=certificate.server) as port:
            with pytest.raises(UpstreamUnreachable, match="TLS failed"):
                await connect(f"wss://localhost:{port}/", timeout=5, ssl_context=certificate.client)

    async def test_a_trusted_one_serves(self, certificate: Certificate) -> None:
        async def echo(ws: ServerConnection) -> None:
            async for message in ws:
                await ws.send(message)

        async with websocket_server(echo, ssl=certificate.server) as port:
            connection = await connect(f"wss://127.0.0.1:{port}/", timeout=5, ssl_context=certificate.client)
            connection.send("你好".encode() * 50_000)
            assert await connection.receive(5) == "你好".encode() * 50_000
            connection.close()

    async def test_a_peer_without_tls(self) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await writer.drain()

        async with raw_server(answer) as port:
            with pytest.raises(UpstreamUnreachable):
                await connect(f"wss://127.0.0.1:{port}/", timeout=5, ssl_context=ssl.create_default_context())
