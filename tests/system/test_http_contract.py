"""Faults of HTTP itself, the request id on every answer, and calls from a browser."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable

import pytest

from system import wire
from system.harness import LocalServer, post_json
from system.samples import jpeg

POSTED = (
    "/auth/register",
    "/auth/login",
    "/textModel/chat",
    "/textModel/stream",
    "/voiceModel/chat",
    "/PictureToTextModel/chat",
    "/user/get_token",
)


async def test_an_unknown_path_is_404_in_json(server: LocalServer) -> None:
    for path in ("/nope", "/", "/textmodel/chat", "/textModel/chat/", "/PictureToTextModel", "/auth/register/%00"):
        answer = await wire.request(server.port, "POST", path, [], b"{}")
        assert answer.status == 404, path
        assert answer.json() == {"code": "APP_NOT_FOUND_ERROR", "msg": "404错误 请求的地址不存在"}


@pytest.mark.parametrize("path", POSTED)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_another_method_is_405_in_json(server: LocalServer, path: str, method: str) -> None:
    answer = await wire.request(server.port, method, path)
    assert answer.status == 405
    assert answer.header("allow") == "POST"
    assert answer.json() == {"code": "METHOD_NOT_ALLOWED", "msg": "405错误 该地址不支持这种请求方法"}


@pytest.mark.parametrize(
    ("path", "limit"),
    [(path, 64 * 1024) for path in ("/auth/register", "/auth/login", "/user/get_token")]
    + [(path, 2 * 1024 * 1024) for path in ("/textModel/chat", "/textModel/stream")]
    + [(path, 16 * 1024 * 1024) for path in ("/voiceModel/chat", "/PictureToTextModel/chat")],
)
@pytest.mark.parametrize("way", ["declared", "chunked", "expected"])
async def test_a_body_over_the_limit_is_413_in_json(server: LocalServer, path: str, limit: int, way: str) -> None:
    person = await server.person()
    async with wire.Connection(server.port) as connection:
        if way == "declared":
            connection.ask("POST", path, person.headers, bytes(limit + 1))
        elif way == "chunked":
            connection.ask("POST", path, [*person.headers, ("Transfer-Encoding", "chunked")])
            connection.send(wire.chunked([bytes(limit // 2)] * 2 + [b"x"]))
        else:
            headers = [*person.headers, ("Content-Length", str(limit + 1)), ("Expect", "100-continue")]
            connection.ask("POST", path, headers)
        answer = await connection.answer()
    assert answer.status == 413
    found = answer.json()
    assert found["code"] == "REQUEST_TOO_LARGE"
    assert "上限" in found["msg"]


async def test_a_body_that_is_announced_endless_ends_soon(server: LocalServer) -> None:
    async with wire.Connection(server.port) as connection:
        connection.ask("POST", "/auth/login", [("Content-Length", "9" * 30)])
        # The parser may refuse such a number as no HTTP at all: then in plain text, and the connection is closed.
        answer = await connection.head()
    assert answer.status in (400, 413)


async def test_every_answer_has_a_request_id_of_its_own(server: LocalServer) -> None:
    person = await server.person()
    origin = ("Origin", "https://app.example")
    preflight: list[wire.Header] = [origin, ("Access-Control-Request-Method", "POST")]
    answers = [
        await post_json(server.port, "/auth/login", {"username": person.username, "password": "wrong"}),
        await person.chat("hi"),
        await person.stream("hi"),
        await person.stream([]),
        await person.picture(jpeg()),
        await person.voice(b"\0\0"),
        await wire.request(server.port, "GET", "/health"),
        await wire.request(server.port, "GET", "/ready"),
        await wire.request(server.port, "GET", "/docs"),
        await wire.request(server.port, "GET", "/openapi.json"),
        await wire.request(server.port, "GET", "/nope"),
        await wire.request(server.port, "GET", "/textModel/chat"),
        await wire.request(server.port, "POST", "/auth/login", [], bytes(70_000)),
        await wire.request(server.port, "OPTIONS", "/textModel/chat", preflight),
    ]
    found = [answer.header("x-request-id") or "" for answer in answers]
    assert all(re.fullmatch("[0-9a-f]{24}", identity) for identity in found), found
    assert len(set(found)) == len(found)


async def test_probes(server: LocalServer) -> None:
    health = (await wire.request(server.port, "GET", "/health")).json()
    assert (health["code"], health["status"], health["upstream"]) == (0, "ok", "sandbox")
    ready = (await wire.request(server.port, "GET", "/ready")).json()
    assert (ready["code"], ready["status"], ready["database"], ready["migrations"]) == (0, "ready", "ok", "ok")


async def test_the_documentation_needs_no_other_machine(server: LocalServer) -> None:
    page = await wire.request(server.port, "GET", "/docs")
    assert page.status == 200
    assert b"http://" not in page.body.replace(b"http://www.w3.org", b"")
    assert b"https://cdn" not in page.body
    for link in re.findall(rb'(?:src|href)="(/[^"]+)"', page.body):
        assert (await wire.request(server.port, "GET", link.decode())).status == 200, link
    described = json.loads((await wire.request(server.port, "GET", "/openapi.json")).body)
    assert set(POSTED) <= set(described["paths"])


async def test_one_connection_carries_many_requests(server: LocalServer) -> None:
    person = await server.person()
    async with wire.Connection(server.port) as connection:
        for _ in range(3):
            connection.ask_json("/textModel/chat", person.call("hi"))
            assert (await connection.answer()).json()["code"] == 0
            connection.ask_json("/textModel/stream", person.call("hi"))
            assert (await connection.answer()).frames()
            connection.ask("GET", "/nope")
            assert (await connection.answer()).status == 404


async def test_requests_that_are_sent_ahead_are_answered_in_order(server: LocalServer) -> None:
    person = await server.person()
    async with wire.Connection(server.port) as connection:
        for text in ("one", "two", "three"):
            connection.ask_json("/textModel/stream", person.call(f"{text} [[fault:slow seconds=0.01]]"))
            connection.ask_json("/textModel/chat", person.call(text))
        for text in ("one", "two", "three"):
            streamed = "".join(
                frame["payload"]["choices"]["text"][0]["content"] for frame in (await connection.answer()).frames()
            )
            assert f'"{text}"' in streamed
            assert (await connection.answer()).json()["content"] == streamed


class TestBrowsers:
    ORIGIN = "https://app.example"

    def preflight(self, *headers: str) -> list[wire.Header]:
        return [
            ("Origin", self.ORIGIN),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", ", ".join(headers) or "content-type"),
        ]

    @pytest.mark.parametrize("path", POSTED)
    async def test_a_preflight_allows_every_route(self, server: LocalServer, path: str) -> None:
        asked = self.preflight("content-type", "uuid", "username", "authorization")
        answer = await wire.request(server.port, "OPTIONS", path, asked)
        assert answer.status == 200
        assert answer.header("access-control-allow-origin") in ("*", self.ORIGIN)
        assert "POST" in (answer.header("access-control-allow-methods") or "")
        allowed = (answer.header("access-control-allow-headers") or "").lower()
        assert all(name in allowed for name in ("content-type", "uuid", "username", "authorization"))
        assert answer.header("access-control-allow-credentials") is None

    async def test_answers_and_error_answers_may_be_read(self, server: LocalServer) -> None:
        person = await server.person()
        origin = ("Origin", self.ORIGIN)
        answers = [
            await post_json(server.port, "/textModel/chat", person.call("hi"), origin),
            await person.stream("hi", origin),
            await person.picture(b"no picture", origin),
            await post_json(server.port, "/auth/login", {}, origin),
            await wire.request(server.port, "GET", "/nope", [origin]),
            await wire.request(server.port, "GET", "/textModel/chat", [origin]),
            await wire.request(server.port, "POST", "/auth/login", [origin], bytes(70_000)),
        ]
        assert [answer.status for answer in answers] == [200, 200, 200, 200, 404, 405, 413]
        for answer in answers:
            assert answer.header("access-control-allow-origin") == "*"
            assert answer.header("access-control-allow-credentials") is None
            assert "x-request-id" in (answer.header("access-control-expose-headers") or "").lower()

    async def test_cookies_change_nothing(self, server: LocalServer) -> None:
        headers: list[wire.Header] = [("Origin", self.ORIGIN), ("Cookie", "session=1")]
        answer = await wire.request(server.port, "GET", "/health", headers)
        assert answer.header("access-control-allow-credentials") is None

    async def test_origins_can_be_narrowed(self, start_server: Callable[..., LocalServer]) -> None:
        server = start_server(cors_origins=(self.ORIGIN,))
        answer = await wire.request(server.port, "GET", "/nope", [("Origin", self.ORIGIN)])
        assert answer.header("access-control-allow-origin") == self.ORIGIN
        assert "origin" in (answer.header("vary") or "").lower()
        answer = await wire.request(server.port, "GET", "/health", [("Origin", "https://evil.example")])
        assert answer.header("access-control-allow-origin") is None
        refused: list[wire.Header] = [("Origin", "https://evil.example"), ("Access-Control-Request-Method", "POST")]
        answer = await wire.request(server.port, "OPTIONS", "/textModel/chat", refused)
        assert answer.header("access-control-allow-origin") is None
        assert answer.status == 400
        assert answer.json()["code"] == "APP_QUERY_METHOD_ERROR"


async def test_nonsense_on_the_socket_hurts_nobody(server: LocalServer) -> None:
    person = await server.person()
    for junk in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"POST /auth/login HTTP/9.9\r\n\r\n", b"\0" * 4096):
        async with wire.Connection(server.port) as connection:
            connection.send(junk)
            await connection.flush()
            await asyncio.sleep(0.01)
    # Half a request, then silence and a hang-up.
    async with wire.Connection(server.port) as connection:
        connection.ask("POST", "/textModel/chat", [("Content-Length", "100")], b'{"uuid":')
        await connection.flush()
        await asyncio.sleep(0.05)
        connection.reset()
    assert (await person.chat("hi")).json()["code"] == 0
    await server.settles()
