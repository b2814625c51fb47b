"""Connections that are open before the question: against the sandbox, and over real TLS."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from aiproject.adapters.net.dialer import ResumingContext, client_tls
from aiproject.config.iflytek import IflytekCredentials
from aiproject.errors import UpstreamRefused
from aiproject.protocols.chat import ChatMessage, ChatRequest
from aiproject.providers.iflytek.connector import IflytekConnector, TimeLimits
from aiproject.providers.iflytek.spark import IflytekSpark
from aiproject.sandbox.faults import parse_fault_requests
from aiproject.sandbox.running import SandboxAddress, SandboxThread
from sandbox_client import FAST


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[SandboxThread, SandboxAddress]]:
    thread = SandboxThread(FAST)
    with thread as address:
        yield thread, address


@asynccontextmanager
async def spark(address: SandboxAddress, *, attempts: int = 1) -> AsyncIterator[IflytekSpark]:
    link = IflytekConnector(
        IflytekCredentials(address.app_id, address.api_key, address.api_secret),
        TimeLimits(2.0, 3.0, 3.0, 10.0, attempts),
    )
    upstream = IflytekSpark(link, url=address.spark_url, domain="generalv3.5", warm=4)
    try:
        yield upstream
    finally:
        upstream.close()
        await asyncio.sleep(0.2)  # what is being opened is closed once it is open


async def ask(upstream: IflytekSpark) -> bool:
    """One whole answer; says whether its connection had waited."""
    stream = await upstream.ask(ChatRequest((ChatMessage("user", "你好"),), max_tokens=200))
    try:
        while not (await stream.receive())[-1].is_last:
            pass
        return stream.is_warm
    finally:
        stream.close()


async def until_one_waits(upstream: IflytekSpark, opened: int) -> None:
    for _ in range(200):
        if upstream.warm_pool.counts.opened >= opened:
            return
        await asyncio.sleep(0.01)
    pytest.fail("no connection was opened ahead")


async def test_the_second_question_finds_its_connection_open(running: tuple[SandboxThread, SandboxAddress]) -> None:
    async with spark(running[1]) as upstream:
        assert not await ask(upstream)
        await until_one_waits(upstream, 1)
        assert await ask(upstream)
        counts = upstream.warm_pool.counts
        assert (counts.hits, counts.misses) == (1, 1)


async def test_one_that_died_unnoticed_costs_neither_a_try_nor_a_pause(
    running: tuple[SandboxThread, SandboxAddress],
) -> None:
    thread, address = running
    async with spark(address) as upstream:
        assert not await ask(upstream)
        await until_one_waits(upstream, 1)
        # The platform hangs up at the very moment that it is asked: the question goes out on a fresh connection.
        thread.faults.add(parse_fault_requests({"service": "chat", "fault": "truncate", "after": 0}))
        began = asyncio.get_running_loop().time()
        assert not await ask(upstream)
        assert asyncio.get_running_loop().time() - began < 1
        assert upstream.warm_pool.counts.hits == 1


async def test_a_platform_that_counts_too_many_is_relieved(running: tuple[SandboxThread, SandboxAddress]) -> None:
    thread, address = running
    async with spark(address) as upstream:
        await asyncio.gather(*(ask(upstream) for _ in range(3)))
        await until_one_waits(upstream, 3)
        thread.faults.add(parse_fault_requests({"service": "chat", "fault": "error", "code": 11203}))
        with pytest.raises(UpstreamRefused):
            await ask(upstream)
        assert upstream.warm_pool.counts.wasted >= 2


@pytest.fixture
def localhost(tmp_path: Path) -> tuple[ssl.SSLContext, Callable[[], ResumingContext]]:
    """A TLS server's context, and what makes clients that trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    held = tmp_path / "both.pem"
    held.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(held)

    def client() -> ResumingContext:
        context = client_tls()
        context.load_verify_locations(held)
        return context

    return server, client


async def _reused(context: ssl.SSLContext, port: int) -> bool:
    reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
    writer.write(b"hello\n")
    assert await reader.readline() == b"hello\n"
    session: ssl.SSLObject = writer.get_extra_info("ssl_object")
    writer.close()
    await writer.wait_closed()
    return bool(session.session_reused)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_tls_sessions_are_resumed(
    version: ssl.TLSVersion,
    loop: Callable[[], asyncio.AbstractEventLoop],
    localhost: tuple[ssl.SSLContext, Callable[[], ResumingContext]],
) -> None:
    server_context, make_client = localhost
    server_context.minimum_version = server_context.maximum_version = version

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def scenario() -> list[bool]:
        server = await asyncio.start_server(echo, "localhost", 0, ssl=server_context)
        async with server:
            port = server.sockets[0].getsockname()[1]
            context = make_client()
            found = [await _reused(context, port) for _ in range(3)]
            await asyncio.sleep(0.1)  # the server's side of the last one
            return found

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(scenario()) == [False, True, True]
