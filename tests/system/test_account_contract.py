"""What existing apps rely on when they register and log in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
import requests

from aiproject.accounts.login.throttle_rules import GUESS_RULE
from system import wire
from system.harness import PASSWORD, LocalServer, post_json

INVALID = "APP_QUERY_METHOD_ERROR"


async def register(server: LocalServer, **fields: Any) -> Any:
    entry = {"username": "somebody", "password": PASSWORD, "email": "e@example.com", **fields}
    entry = {name: value for name, value in entry.items() if value is not ...}
    return (await post_json(server.port, "/auth/register", entry)).json()


async def login(server: LocalServer, username: object, password: object = PASSWORD) -> Any:
    return (await post_json(server.port, "/auth/login", {"username": username, "password": password})).json()


class TestRegistration:
    async def test_a_name_is_taken_once(self, server: LocalServer) -> None:
        assert await register(server, username="Taken One") == {"code": 0, "msg": "用户注册成功"}
        for spelling in ("Taken One", "  taken ONE\t", "Ｔaken One"):
            assert await register(server, username=spelling) == {"code": "USER_NAME_REPEAT", "msg": "用户名已存在"}

    async def test_thirty_at_once_open_one_account(self, server: LocalServer) -> None:
        answers = await asyncio.gather(*(register(server, username=f"RACER{'' if n % 2 else ' '}") for n in range(30)))
        assert sum(answer["code"] == 0 for answer in answers) == 1
        assert sum(answer["code"] == "USER_NAME_REPEAT" for answer in answers) == 29

    async def test_what_may_be_empty_or_absent(self, server: LocalServer) -> None:
        assert (await register(server, username="no mail", email="", academy=""))["code"] == 0
        assert (await register(server, username="null academy", academy=None))["code"] == 0
        assert "academy" not in await login(server, "no mail")
        assert "academy" not in await login(server, "null academy")

    async def test_everything_is_trimmed(self, server: LocalServer) -> None:
        fields = {
            "username": " Trim Me ",
            "password": f"  {PASSWORD}\n",
            "email": " t@example.com ",
            "academy": " 文院 ",
        }
        assert (await register(server, **fields))["code"] == 0
        found = await login(server, "trim me", PASSWORD)
        assert (found["username"], found["email"], found["academy"]) == ("Trim Me", "t@example.com", "文院")

    @pytest.mark.parametrize("field", ["username", "password", "email"])
    async def test_a_missing_or_wrong_field_is_named(self, server: LocalServer, field: str) -> None:
        for value in (..., None, 5, True, ["a"], {"a": 1}):
            answer = await register(server, **{field: value})
            assert answer["code"] == INVALID
            assert field in answer["msg"]

    async def test_limits_of_lengths(self, server: LocalServer) -> None:
        for fields in (
            {"username": "n" * 51},
            {"password": "p" * 129},
            {"email": "e" * 255},
            {"academy": "a" * 101},
            {"academy": 5},
            {"username": " "},
            {"password": ""},
            {"password": "short 7"},
            {"password": "Password"},
            {"username": "one and the same", "password": "One And The Same"},
        ):
            assert (await register(server, **fields))["code"] == INVALID, fields

    async def test_closed_registration_says_so(self, start_server: Callable[..., LocalServer]) -> None:
        server = start_server(registration="closed")
        assert await register(server) == {"code": "REGISTRATION_CLOSED", "msg": "当前不开放注册"}


class TestLogin:
    async def test_what_an_app_keeps(self, server: LocalServer) -> None:
        await register(server, username="Kept", academy="软件学院")
        found = await login(server, "kept")
        assert found == {
            "code": 0,
            "msg": "用户登录成功",
            "uuid": found["uuid"],
            "username": "Kept",
            "email": "e@example.com",
            "academy": "软件学院",
            "tokens": 1_000_000,
            "picTimes": 1000,
        }
        assert type(found["code"]) is int
        assert len(found["uuid"]) == 32
        int(found["uuid"], 16)

    async def test_the_uuid_stays_over_logins(self, server: LocalServer) -> None:
        person = await server.person()
        assert {(await person.login())["uuid"] for _ in range(3)} == {person.uuid}

    async def test_a_failure_says_nothing_more(self, server: LocalServer) -> None:
        person = await server.person()
        failed = {"code": "LOGIN_ERROR", "msg": "用户登录失败"}
        assert await login(server, person.username, "wrong") == failed
        assert await login(server, "nobody at all") == failed
        assert await login(server, person.username, PASSWORD.upper()) == failed
        assert await login(server, "") == failed
        assert await login(server, person.username, "") == failed
        assert await login(server, "n" * 5000, "p" * 5000) == failed

    async def test_a_disabled_account_is_unknown_everywhere(self, server: LocalServer) -> None:
        person = await server.person()
        async with server.accounts() as (accounts, _):
            await accounts.set_disabled(person.username, True)
        assert (await login(server, person.username))["code"] == "LOGIN_ERROR"
        assert (await person.chat("hi")).json() == {"code": "USER_NOT_FOUND", "msg": "找不到指定用户"}
        assert (await person.stream("hi")).json()["code"] == "USER_NOT_FOUND"
        assert (await person.picture(b"x")).json()["code"] == "USER_NOT_FOUND"
        async with server.accounts() as (accounts, _):
            await accounts.set_disabled(person.username, False)
        assert (await login(server, person.username))["uuid"] == person.uuid

    @pytest.mark.parametrize("field", ["username", "password"])
    async def test_a_missing_or_wrong_field_is_named(self, server: LocalServer, field: str) -> None:
        whole: dict[str, object] = {"username": "a", "password": "b"}
        for value in (None, 5, ["a"]):
            answer = (await post_json(server.port, "/auth/login", {**whole, field: value})).json()
            assert answer["code"] == INVALID
            assert field in answer["msg"]


class TestBodies:
    @pytest.mark.parametrize(
        "content_type",
        [
            "application/json",
            "application/json; charset=utf-8",
            "application/x-www-form-urlencoded",
            "text/plain;charset=UTF-8",
            None,
        ],
    )
    async def test_json_is_read_under_any_content_type(self, server: LocalServer, content_type: str | None) -> None:
        person = await server.person()
        headers: list[wire.Header] = [] if content_type is None else [("Content-Type", content_type)]
        body = json.dumps({"username": person.username, "password": PASSWORD}, ensure_ascii=False).encode()
        answer = await wire.request(server.port, "POST", "/auth/login", headers, body)
        assert answer.json()["uuid"] == person.uuid

    async def test_a_chunked_body_is_read(self, server: LocalServer) -> None:
        person = await server.person()
        body = json.dumps({"username": person.username, "password": PASSWORD}).encode()
        pieces = [body[n : n + 7] for n in range(0, len(body), 7)]
        headers: list[wire.Header] = [("Content-Type", "application/json"), ("Transfer-Encoding", "chunked")]
        answer = await wire.request(server.port, "POST", "/auth/login", headers, wire.chunked(pieces))
        assert answer.json()["uuid"] == person.uuid

    def test_as_the_desktop_app_sends_it(self, server: LocalServer) -> None:
        base = f"http://127.0.0.1:{server.port}/auth"
        entry = {"username": "桌面用户", "password": PASSWORD, "email": "", "academy": ""}
        headers = {"Content-Type": "application/json"}
        assert (
            requests.post(f"{base}/register", headers=headers, data=json.dumps(entry), timeout=10).json()["code"] == 0
        )
        found = requests.post(f"{base}/login", json={"username": "桌面用户", "password": PASSWORD}, timeout=10).json()
        assert (found["username"], found["tokens"], found["picTimes"]) == ("桌面用户", 1_000_000, 1000)


class TestLimits:
    async def test_a_flood_of_registrations_is_stopped_with_429(self, start_server: Callable[..., LocalServer]) -> None:
        server = start_server(limits="on")
        entry = {"username": "", "password": PASSWORD, "email": ""}
        for _ in range(120):
            assert (await post_json(server.port, "/auth/register", entry)).status == 200
        answer = await post_json(server.port, "/auth/register", entry)
        assert answer.status == 429
        assert 1 <= int(answer.header("retry-after") or 0) <= 61
        assert answer.json() == {"code": "TOO_MANY_REQUESTS", "msg": "请求过于频繁，请稍后再试"}

    async def test_guessing_one_name_is_stopped_and_a_right_login_of_another_is_not(
        self, start_server: Callable[..., LocalServer]
    ) -> None:
        """On the free failures one more, then a second's wait, whether the name exists or not."""
        server = start_server(limits="on")
        person, victim = await server.person(), await server.person()
        outcomes = []
        for name in (victim.username, "nobody at all"):
            guess = {"username": name, "password": "a wrong guess"}
            answers = [await post_json(server.port, "/auth/login", guess) for _ in range(6)]
            answers.append(await post_json(server.port, "/auth/login", {**guess, "username": f" {name.upper()} "}))
            outcomes.append([_without_date(answer) for answer in answers])
        assert outcomes[0] == outcomes[1]
        assert [status for status, _, _ in outcomes[0]] == [200] * 7
        assert ("retry-after", "1") in outcomes[0][-1][1]
        delayed = {"code": "LOGIN_ERROR", "msg": "失败次数过多，请在 1 秒后再试"}
        assert json.loads(outcomes[0][-1][2]) == delayed
        assert await person.tokens() == 1_000_000
        right = {"username": victim.username, "password": PASSWORD}
        assert (await post_json(server.port, "/auth/login", right)).json() == delayed, (
            "the password does not matter now"
        )
        await asyncio.sleep(1.1)
        assert (await post_json(server.port, "/auth/login", right)).json()["code"] == 0

    async def test_wrong_uuids_are_slowed_and_the_right_one_always_passes(
        self, start_server: Callable[..., LocalServer]
    ) -> None:
        server = start_server(limits="on")
        person = await server.person()
        wrong = [("uuid", "0" * 32), ("username", person.username)]
        right = [("uuid", person.uuid), ("username", person.username)]
        statuses = [
            (await wire.request(server.port, "GET", "/v1/usage/unknown", wrong)).status
            for _ in range(GUESS_RULE.free + 2)
        ]
        assert 429 not in statuses[: GUESS_RULE.free]
        assert statuses[-1] == 429
        answer = await wire.request(server.port, "GET", "/v1/usage/unknown", right)
        assert answer.json()["code"] != "TOO_MANY_REQUESTS"


def _without_date(answer: wire.Answer) -> tuple[int, list[tuple[str, str]], bytes]:
    changing = ("date", "x-request-id", "ratelimit")  # the address's, whatever it asks
    return answer.status, [header for header in answer.headers if header[0].lower() not in changing], answer.body
