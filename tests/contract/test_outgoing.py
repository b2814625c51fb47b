"""Requests that leave the house go where the settings say, and nowhere that an answer or the environment says."""

from __future__ import annotations

import ast
import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from PIL import Image

from aiproject.config.iflytek import IflytekCredentials
from aiproject.errors import UpstreamFailed
from aiproject.media.picture import Picture
from aiproject.protocols.chat import ChatMessage, ChatRequest
from aiproject.providers.iflytek.connector import IflytekConnector, TimeLimits
from aiproject.providers.iflytek.ocr import IflytekOcr
from aiproject.providers.iflytek.spark import IflytekSpark

CREDENTIALS = IflytekCredentials("app", "key-0123456789abcdef", "secret-0123456789abcdef")
LIMITS = TimeLimits(connect=2, first_frame=2, gap=2, call=5, attempts=1)
SOURCES = sorted((Path(__file__).parents[2] / "src" / "aiproject").rglob("*.py"))


@asynccontextmanager
async def answering(head: Callable[[], bytes]) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that answers every request with ``head``; gives its port and the request lines that it saw."""
    seen: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        seen.append(request.partition(b"\r\n")[0])
        writer.write(head())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1]), seen
    finally:
        server.close()
        await server.wait_closed()


async def read_picture(base: str) -> None:
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "PNG")
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        upstream = IflytekOcr(
            IflytekConnector(CREDENTIALS, LIMITS), url=f"http://{base}/v1/private/sf8e6aca1", http=http
        )
        await upstream.read(Picture(out.getvalue(), "png", 4, 4))


async def chat(base: str) -> None:
    upstream = IflytekSpark(IflytekConnector(CREDENTIALS, LIMITS), url=f"ws://{base}/v3.5/chat", domain="generalv3.5")
    await upstream.ask(ChatRequest((ChatMessage("user", "hi"),), 10, 0.5, 4))


CALLS = pytest.mark.parametrize("call", [read_picture, chat], ids=["http", "websocket"])


@CALLS
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_no_redirect_is_followed(call: Callable[[str], Awaitable[None]], status: int, host: str) -> None:
    async with answering(lambda: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (elsewhere, visits):
        location = f"http://{host}:{elsewhere}/stolen".encode()
        moved = b"HTTP/1.1 %d Moved\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % (status, location)
        async with answering(lambda: moved) as (port, asked):
            with pytest.raises(UpstreamFailed) as refusal:
                await call(f"127.0.0.1:{port}")
    assert len(asked) == 1
    assert visits == []
    assert "stolen" not in str(refusal.value)
    assert CREDENTIALS.api_secret not in str(refusal.value)


@CALLS
async def test_proxies_of_the_environment_are_not_asked(
    call: Callable[[str], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may set a variable of the process would read every question otherwise."""
    async with answering(lambda: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (proxy, visits):
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY", "ws_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with answering(lambda: b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\n{}") as (port, asked):
            with pytest.raises(UpstreamFailed):
                await call(f"127.0.0.1:{port}")
    assert len(asked) == 1
    assert visits == []


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]


def keywords(call: ast.Call) -> dict[str | None, str]:
    return {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}


def test_every_client_in_the_code_is_one_that_follows_nobody() -> None:
    """A new way out of the house must say so here."""
    ways_out = {}
    for path in SOURCES:
        for call in calls(path):
            name = ast.unparse(call.func)
            given = keywords(call)
            if name.endswith("ClientSession"):
                assert given.get("trust_env", "False") == "False", path
                ways_out[path.name] = name
            elif name.rpartition(".")[0].endswith(("http", "session", "_session")) and name.rpartition(".")[2] in (
                *("get", "post", "put", "delete", "patch", "head", "request", "ws_connect"),
            ):
                assert given.get("allow_redirects") == "False", (path, name)
                ways_out[path.name] = name
            elif name.endswith("ws_connect"):
                raise AssertionError(f"a websocket client besides our own, in {path}")
            elif name.rpartition(".")[2] in ("create_connection", "open_connection", "start_connection"):
                ways_out[path.name] = name
            assert name not in ("urlopen", "urllib.request.urlopen", "requests.get", "httpx.get"), path
    # Our own client knows neither redirects nor proxies (the tests above); its dialer connects to what it is told.
    assert set(ways_out) == {"http_client.py", "ocr.py", "websocket.py", "dialer.py"}


@asynccontextmanager
async def echoing() -> AsyncIterator[tuple[int, list[str]]]:
    """A gateway that refuses, and repeats the request line in its refusal; gives its port and what it repeated."""
    seen: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        line = request.partition("\r\n")[0]
        seen.append(line)
        body = json.dumps({"message": f"key {CREDENTIALS.api_key} may not {line}"}).encode()
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1]), seen
    finally:
        server.close()
        await server.wait_closed()


@CALLS
async def test_what_a_gateway_repeats_of_our_request_is_not_told(call: Callable[[str], Awaitable[None]]) -> None:
    async with echoing() as (port, seen):
        with pytest.raises(UpstreamFailed) as refusal:
            await call(f"127.0.0.1:{port}")
    told = f"{refusal.value} {refusal.value!r} {refusal.value.detail} {refusal.value.hint}"
    assert "401" in told
    assert " may not " in told
    (line,) = seen
    authorization = line.partition("authorization=")[2].partition("&")[0]
    assert len(authorization) > 100
    assert authorization[:24] not in told
    assert CREDENTIALS.api_key not in told
