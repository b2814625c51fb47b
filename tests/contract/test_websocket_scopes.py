"""Websockets through the middleware, on a server as it is configured for our own: id, limits, credentials, log line."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
import uvicorn
import uvloop
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as client_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from aiproject.accounts.identity.authenticator import bearer_of
from aiproject.adapters.http.asgi import Receive, Scope, Send, request_id, send_json
from aiproject.adapters.http.connection_counts import ConnectionCounts
from aiproject.adapters.http.connections import guarded, websocket_options
from aiproject.adapters.http.rate_limiter import MemoryRateLimiter
from aiproject.errors import HttpFault, NotSignedIn, Unavailable
from aiproject.protocols.forwarding import TrustedProxies
from aiproject.web.dialects import DIALECTS
from aiproject.web.middleware import EdgePolicy, with_middleware

PATHS = frozenset({"/v1/echo", "/echo"})
HEAD_TIMEOUT = 0.3


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """A route that answers what it hears, for those who show a key."""
    if scope["type"] == "http":
        if scope["path"] not in PATHS:
            raise HttpFault(404)
        await send_json(send, 200, json.dumps({"is": "plain HTTP"}).encode())
        return
    assert (await receive())["type"] == "websocket.connect"
    key = bearer_of(scope)
    if key is None:
        raise NotSignedIn
    if key == "bug":
        raise ZeroDivisionError
    await send({"type": "websocket.accept", "headers": []})
    while (message := await receive())["type"] == "websocket.receive":
        match message.get("text"):
            case "bug":
                raise ZeroDivisionError
            case "busy":
                raise Unavailable("it is")
            case "close":
                await send({"type": "websocket.close", "code": 4000})
            case text:
                await send({"type": "websocket.send", "text": f"{request_id(scope)} {scope['client'][0]} {text}"})


class Running:
    """The server and what it has logged."""

    def __init__(self, server: uvicorn.Server, port: int, counts: ConnectionCounts) -> None:
        self.server = server
        self.port = port
        self.counts = counts
        self.lines: list[MutableMapping[str, Any]] = []

    def connect(self, path: str = "/v1/echo", key: str | None = "key", **headers: str) -> client_connect:
        fields = {**headers, **({} if key is None else {"Authorization": f"Bearer {key}"})}
        return client_connect(f"ws://127.0.0.1:{self.port}{path}", additional_headers=fields, proxy=None)

    async def line(self) -> MutableMapping[str, Any]:
        """The line of the websocket that ended last."""
        await self.until(lambda: any(line["event"] == "websocket" for line in self.lines))
        found = [line for line in self.lines if line["event"] == "websocket"]
        self.lines.clear()
        return found[-1]

    async def until(self, is_so: Callable[[], bool]) -> None:
        for _ in range(500):
            if is_so():
                return
            await asyncio.sleep(0.01)
        pytest.fail("it does not come")


@pytest.fixture(autouse=True)
def _quiet_uvicorn() -> Iterator[None]:
    logger = logging.getLogger("uvicorn.error")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


@asynccontextmanager
async def running(per_minute: int = 1000, proxies: tuple[str, ...] = ()) -> AsyncIterator[Running]:
    counts = ConnectionCounts(100)
    edge = EdgePolicy(TrustedProxies(proxies), MemoryRateLimiter(), per_minute)
    config = uvicorn.Config(
        with_middleware(application, [], edge),
        http=guarded(  # type: ignore[arg-type] # as in `aiproject.server`
            head_timeout=HEAD_TIMEOUT, counts=counts, reader_timeout=30, dialects=DIALECTS, websocket_paths=PATHS
        ),
        **websocket_options(PATHS),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
    )
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(config)
    found = Running(server, listener.getsockname()[1], counts)
    task = asyncio.create_task(server._serve([listener]))  # without its handling of signals
    try:
        with structlog.testing.capture_logs() as lines:
            found.lines = lines
            await found.until(lambda: server.started)
            yield found
            server.should_exit = True
            await task
    finally:
        server.should_exit = True
        await asyncio.gather(task, return_exceptions=True)


async def told(connection: ClientConnection, text: str) -> str:
    await connection.send(text)
    answer = await asyncio.wait_for(connection.recv(), 5)
    assert isinstance(answer, str)
    return answer


async def end_of(connection: ClientConnection) -> int:
    with pytest.raises(ConnectionClosed):
        await asyncio.wait_for(connection.recv(), 5)
    assert connection.close_code is not None
    return connection.close_code


async def refusal(run: Running, path: str = "/v1/echo", key: str | None = "key") -> tuple[int, Any, Any]:
    with pytest.raises(InvalidStatus) as caught:
        async with run.connect(path, key):
            pass
    answer = caught.value.response
    assert answer.body is not None
    return answer.status_code, answer.headers, json.loads(answer.body)


async def test_a_websocket_has_an_id_and_a_line() -> None:
    async with running() as run:
        async with run.connect() as connection:
            identity, client, text = (await told(connection, "汉")).split()
            assert connection.response is not None
            assert connection.response.headers["X-Request-Id"] == identity
            assert (client, text) == ("127.0.0.1", "汉")
        line = await run.line()
        assert line["request_id"] == identity
        assert (line["path"], line["client"], line["status"], line["close"]) == ("/v1/echo", "127.0.0.1", 101, 1000)


async def test_a_caller_without_credentials_is_refused_before_the_handshake() -> None:
    async with running() as run:
        status, headers, body = await refusal(run, key=None)
        assert status == 401
        assert headers["Content-Type"] == "application/json"
        assert headers["X-Request-Id"]
        assert body["code"] == "NOT_SIGNED_IN"
        line = await run.line()
        assert (line["status"], line["close"], line["outcome"]) == (401, None, "NOT_SIGNED_IN")
        assert line["request_id"] == headers["X-Request-Id"]


async def test_requests_of_an_address_are_limited() -> None:
    async with running(per_minute=1) as run:
        async with run.connect() as connection:
            await told(connection, "a")
            assert connection.response is not None
            assert "RateLimit" in connection.response.headers
        await run.line()
        status, headers, body = await refusal(run)
        assert (status, body["code"]) == (429, "TOO_MANY_REQUESTS")
        assert int(headers["Retry-After"]) > 0
        assert (await run.line())["status"] == 429


async def test_a_proxy_names_the_client() -> None:
    async with running(proxies=("127.0.0.0/8",)) as run:
        async with run.connect(**{"X-Forwarded-For": "192.0.2.7"}) as connection:
            assert (await told(connection, "a")).split()[1] == "192.0.2.7"
        assert (await run.line())["client"] == "192.0.2.7"


async def test_a_defect_before_the_handshake_is_answered() -> None:
    async with running() as run:
        status, _, body = await refusal(run, key="bug")
        assert (status, body["code"]) == (500, "APP_INTERNAL_ERROR")
        assert any(line["event"] == "bug" for line in run.lines)


@pytest.mark.parametrize(("text", "code"), [("bug", 1011), ("busy", 1013), ("close", 4000)])
async def test_afterwards_the_close_code_tells(text: str, code: int) -> None:
    async with running() as run:
        async with run.connect() as connection:
            await connection.send(text)
            assert await end_of(connection) == code
        if text == "close":
            assert (await run.line())["close"] == code
        else:
            await run.line()


@pytest.mark.parametrize("path", ["/v1/nowhere", "/nowhere"])
async def test_where_there_is_no_websocket_the_answer_is_that_of_plain_http(path: str) -> None:
    async with running() as run:
        status, headers, body = await refusal(run, path)
        assert status == 404
        assert headers["X-Request-Id"]
        assert "code" in body


async def test_a_plain_request_to_its_path_is_one() -> None:
    def ask(port: int) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            for headers in ({}, {"Upgrade": "h2c", "Connection": "Upgrade"}):
                connection.request("GET", "/v1/echo", headers=headers)
                answer = connection.getresponse()
                found = answer.status, answer.read()
            # A body is none of a handshake's: an offer that comes with one is passed over.
            connection.request("POST", "/v1/echo", b"body", {"Upgrade": "websocket", "Connection": "Upgrade"})
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == found
            return found
        finally:
            connection.close()

    async with running() as run:
        assert await asyncio.to_thread(ask, run.port) == (200, b'{"is": "plain HTTP"}')


async def test_it_outlives_the_limits_on_requests_and_is_counted_until_its_end() -> None:
    async with running() as run:
        async with run.connect() as connection:
            await told(connection, "a")
            await asyncio.sleep(3 * HEAD_TIMEOUT)
            await told(connection, "b")
            assert len(run.counts) == 1
        await run.until(lambda: len(run.counts) == 0)


async def test_a_client_that_goes_without_a_word_is_noticed() -> None:
    async with running() as run:
        async with run.connect() as connection:
            await told(connection, "a")
            connection.transport.abort()
            line = await run.line()
        assert line["status"] == 101
        assert line["close"] in (1005, 1006)


def test_a_stop_closes_it_on_the_servers_own_loop() -> None:
    async def scenario() -> None:
        async with running() as run, run.connect() as connection:
            await told(connection, "a")
            run.server.should_exit = True
            assert await end_of(connection) == 1012

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())
