"""A dialect is one class: a toy of one, and every kind of failure in its form, over a real connection."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aiproject.adapters.http.bodies import read_body
from aiproject.adapters.http.connection_counts import ConnectionCounts
from aiproject.adapters.http.connections import guarded
from aiproject.adapters.http.errors import STANDARD_DIALECTS
from aiproject.adapters.http.rate_limiter import MemoryRateLimiter
from aiproject.codes import Detail
from aiproject.errors import AiProjectError, InvalidInput, QuotaExhausted, Unavailable
from aiproject.messages.formatting import Language, format_error
from aiproject.protocols.dialects import Dialect, Dialects, ErrorAnswer, FailedRequest
from aiproject.protocols.forwarding import TrustedProxies
from aiproject.protocols.legacy import failure_of
from aiproject.web.app import Endpoints, Readiness, build_app
from aiproject.web.middleware import EdgePolicy

# -- the toy: nothing else in src/ knows of it -------------------------------------------------------------------------


class ToyDialect:
    """Errors as ``application/problem+json`` (RFC 9457), in English. Implements `Dialect`."""

    prefix = "/toy/"

    def render(self, error: BaseException, request: FailedRequest) -> ErrorAnswer:
        """Implements `Dialect.render`."""
        failure = failure_of(error, language=Language.EN)  # for its code; the statuses are the toy's own
        status = 402 if isinstance(error, QuotaExhausted) else failure.status if failure.status >= 400 else 422
        problem = {"type": f"urn:toy:{failure.code.lower()}", "title": failure.msg, "status": status}
        if isinstance(error, AiProjectError) and status < 500:
            problem["detail"] = format_error(error, Language.EN)
        return ErrorAnswer(status, json.dumps(problem).encode(), str(failure.code), b"application/problem+json")


async def echo(request: Request) -> Response:
    return Response(await read_body(request.receive, request.scope["headers"], limit=16))


async def refuse(request: Request) -> Response:
    errors: dict[str, Exception] = {
        "input": InvalidInput(Detail.FIELD_MISSING, field="model"),
        "quota": QuotaExhausted("tokens"),
        "away": Unavailable("10.0.0.1 is away", retry_after=9),
        "bug": RuntimeError("password=hunter2"),
    }
    raise errors[request.path_params["kind"]]


ROUTES = [Route("/toy/echo", echo, methods=["POST"]), Route("/toy/refuse/{kind}", refuse)]


# -- a server ----------------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """What came back, names of header fields in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        return cast("dict[str, Any]", json.loads(self.body))


class Client(NamedTuple):
    """Sends bytes to the server, each time over a new connection."""

    port: int

    async def send(self, request: bytes) -> Answer:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            return await self.read(reader)
        finally:
            writer.close()

    @staticmethod
    async def read(reader: asyncio.StreamReader) -> Answer:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        return Answer(int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"])))

    async def ask(self, method: str, path: str, *fields: str, body: bytes = b"") -> Answer:
        head = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(body)}", *fields]
        return await self.send("\r\n".join([*head, "", ""]).encode() + body)


async def nothing(request: Request) -> Response:
    return Response()


async def ready() -> Readiness:
    return Readiness(True, {})


@asynccontextmanager
async def serving(*, connections: int = 100, of_address: int = 100, a_minute: int = 1000) -> AsyncIterator[Client]:
    dialects = Dialects((*STANDARD_DIALECTS, ToyDialect()))
    others: Any = SimpleNamespace(register=nothing, login=nothing, redeem=nothing, entries=nothing, receipt=nothing)
    app = build_app(
        Endpoints(others, {}, others, others, more=ROUTES),
        readiness=ready,
        is_sandbox=True,
        cors_origins=[],
        edge_policy=EdgePolicy(TrustedProxies(()), MemoryRateLimiter(), a_minute),
        body_timeout=0.3,
        dialects=dialects,
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=guarded(  # type: ignore[arg-type] # as the server does
                    head_timeout=0.5,
                    counts=ConnectionCounts(connections, of_address),
                    reader_timeout=5,
                    dialects=dialects,
                ),
                ws="none",
                lifespan="off",
                log_config=None,
            )
        )
        task = asyncio.create_task(server.serve([listener]))
        try:
            yield Client(listener.getsockname()[1])
        finally:
            server.should_exit = True
            await task


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with serving() as client:
        yield client


def is_toy(answer: Answer, status: int, code: str) -> bool:
    assert answer.headers["content-type"] == "application/problem+json", answer
    assert answer.status == answer.json()["status"]
    return (answer.status, answer.json()["type"]) == (status, f"urn:toy:{code}")


# -- its errors --------------------------------------------------------------------------------------------------------


async def test_what_an_endpoint_refuses(client: Client) -> None:
    answer = await client.ask("GET", "/toy/refuse/input")
    assert is_toy(answer, 422, "app_query_method_error")
    assert answer.json()["detail"] == "model is missing"
    assert is_toy(await client.ask("GET", "/toy/refuse/quota"), 402, "token_not_enough")


async def test_faults_of_http(client: Client) -> None:
    assert is_toy(await client.ask("GET", "/toy/none"), 404, "app_not_found_error")
    refused = await client.ask("GET", "/toy/echo")
    assert is_toy(refused, 405, "method_not_allowed")
    assert refused.headers["allow"] == "POST"
    assert is_toy(await client.ask("POST", "/toy/echo", body=b"x" * 17), 413, "request_too_large")
    encoded = await client.ask("POST", "/toy/echo", "Content-Encoding: gzip", body=b"x")
    assert is_toy(encoded, 415, "unsupported_encoding")
    assert encoded.headers["accept-encoding"] == "identity"
    preflight = await client.ask("OPTIONS", "/toy/echo", "Origin: http://evil", "Access-Control-Request-Method: POST")
    assert is_toy(preflight, 400, "app_query_method_error")


async def test_a_body_that_stops(client: Client) -> None:
    answer = await client.send(b"POST /toy/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nx")
    assert is_toy(answer, 408, "request_timeout")


async def test_faults_of_the_server(client: Client) -> None:
    away = await client.ask("GET", "/toy/refuse/away")
    assert is_toy(away, 503, "service_unavailable")
    assert away.headers["retry-after"] == "9"
    bug = await client.ask("GET", "/toy/refuse/bug")
    assert is_toy(bug, 500, "app_internal_error")
    assert b"hunter2" not in bug.body
    assert b"10.0.0.1" not in away.body


async def test_a_head_that_the_parser_refuses(client: Client) -> None:
    long = await client.send(b"GET /toy/echo HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 40_000 + b"\r\n\r\n")
    assert is_toy(long, 431, "app_query_method_error")
    assert long.headers["connection"] == "close"
    assert is_toy(
        await client.send(b"GET /toy/echo HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), 400, "app_query_method_error"
    )
    assert is_toy(await client.send(b"GET /t%6Fy/echo HTTP/1.1\r\nHost: x\r\n"), 408, "request_timeout")


async def test_limits_of_requests() -> None:
    async with serving(a_minute=1) as client:
        assert (await client.ask("POST", "/toy/echo", body=b"hi")).body == b"hi"
        refused = await client.ask("POST", "/toy/echo", body=b"hi")
        assert is_toy(refused, 429, "too_many_requests")
        assert int(refused.headers["retry-after"]) >= 1


@pytest.mark.parametrize(("limits", "status"), [({"connections": 1}, 503), ({"of_address": 1}, 429)])
async def test_limits_of_connections_come_before_any_address(limits: dict[str, int], status: int) -> None:
    async with serving(**limits) as client:
        _, writer = await asyncio.open_connection("127.0.0.1", client.port)
        reader, other = await asyncio.open_connection("127.0.0.1", client.port)
        answer = await client.read(reader)
        assert (answer.status, answer.headers["retry-after"]) == (status, "5")
        assert set(answer.json()) == {"code", "msg"}, "the form of the path /"
        writer.close()
        other.close()


async def test_other_addresses_keep_their_form(client: Client) -> None:
    legacy = await client.ask("GET", "/toyland", "Accept-Language: en")
    assert (legacy.status, legacy.json()) == (404, {"code": "APP_NOT_FOUND_ERROR", "msg": "404错误 请求的地址不存在"})
    assert "content-language" not in legacy.headers


@pytest.mark.parametrize(
    ("fields", "language", "msg"),
    [
        ([], "zh", "404错误 请求的地址不存在"),
        (["Accept-Language: en-GB, zh;q=0.5"], "en", "There is nothing at this address"),
        (["Accept-Language: zh;q=0.1", "Accept-Language: en;q=0.2"], "en", "There is nothing at this address"),
        (["Accept-Language: fr"], "zh", "404错误 请求的地址不存在"),
    ],
)
async def test_v1_answers_in_the_reader_s_language(client: Client, fields: list[str], language: str, msg: str) -> None:
    answer = await client.ask("GET", "/v1/none", *fields)
    assert (answer.status, answer.json()["msg"]) == (404, msg)
    assert answer.headers["content-language"] == language
    assert "accept-language" in answer.headers["vary"].lower()


def test_each_prefix_has_one_dialect_and_one_is_for_the_rest() -> None:
    assert isinstance(Dialects((*STANDARD_DIALECTS, ToyDialect())).of("/toy/x"), ToyDialect)
    wrongs: list[list[Dialect]] = [[ToyDialect()], [*STANDARD_DIALECTS, ToyDialect(), ToyDialect()]]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="prefix"):
            Dialects(wrong)
