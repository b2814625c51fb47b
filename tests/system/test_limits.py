"""Limits as clients meet them: in headers and refusals, over several servers, without Redis, and behind a proxy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from services import Redis
from system import wire
from system.harness import LocalServer, Person, Platform, eventually, open_account, post_json
from system.samples import jpeg, pcm

Start = Callable[..., LocalServer]

LONG = "[[fault:slow seconds=0.05]] [[fault:frames n=60]]"


async def probe(port: int, *headers: wire.Header) -> wire.Answer:
    return await wire.request(port, "GET", "/nope", list(headers))


async def test_every_answer_tells_where_its_caller_stands(start_server: Start) -> None:
    server = start_server(limits="on", address_requests_per_minute=500, account_requests_per_minute=60)
    person = await server.person()
    for answer in (await person.chat("hi"), await person.stream("hi")):
        assert answer.status == 200
        assert (answer.header("ratelimit-policy") or "").split(", ") == [
            '"address";q=500;w=60',
            '"address-calls";q=200;qu="concurrent-requests"',
            '"account";q=60;w=60',
            '"account-calls";q=50;qu="concurrent-requests"',
        ]
        standings = (answer.header("ratelimit") or "").split(", ")
        assert [standing.partition(";")[0] for standing in standings] == [
            '"address"',
            '"address-calls"',
            '"account"',
            '"account-calls"',
        ]
        assert standings[2].startswith('"account";r=5')
        assert standings[3] == '"account-calls";r=49'
    assert (await wire.request(server.port, "GET", "/health")).header("ratelimit") is None
    assert (await wire.request(server.port, "GET", "/ready")).header("ratelimit") == '"address-probes";r=499;t=60'


async def test_an_address_over_its_limit_is_429_in_the_shape_that_apps_read(start_server: Start) -> None:
    server = start_server(limits="on", address_requests_per_minute=5)
    answers = [await probe(server.port, ("Origin", "https://app.example")) for _ in range(6)]
    assert [answer.status for answer in answers] == [404] * 5 + [429]
    refusal = answers[-1]
    assert refusal.json() == {"code": "TOO_MANY_REQUESTS", "msg": "请求过于频繁，请稍后再试"}
    wait = int(refusal.header("retry-after") or 0)
    assert 1 <= wait <= 73
    assert refusal.header("ratelimit") == f'"address";r=0;t={wait}'
    assert refusal.header("access-control-allow-origin") == "*"
    assert (await wire.request(server.port, "GET", "/health")).status == 200


async def start_streams(platform: Platform, person: Person, count: int) -> list[asyncio.Task[Any]]:
    """Start answers that take their time, and wait until they run."""
    open_before = platform.counts("chat")["open"]
    running = [asyncio.create_task(person.stream(LONG)) for _ in range(count)]
    await eventually(lambda: platform.counts("chat")["open"] >= open_before + count, "the streams run")
    return running


async def stop(tasks: list[asyncio.Task[Any]]) -> None:
    """Hang up."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_an_account_has_so_many_calls_at_once_and_gets_its_place_back(
    start_server: Start, platform: Platform
) -> None:
    server = start_server(limits="on", account_concurrent_calls=2, client_gone_drain=0)
    person, other = await server.person(), await server.person()
    running = await start_streams(platform, person, 2)
    answer = await person.chat("hi")
    assert answer.status == 429
    assert answer.json() == {"code": "TOO_MANY_REQUESTS", "msg": "同时进行的请求过多，请稍后再试"}
    assert answer.header("retry-after") == "1"
    assert answer.header("ratelimit-policy") == '"account-calls";q=2;qu="concurrent-requests"'
    assert answer.header("ratelimit") == '"account-calls";r=0'
    for answer in (await person.picture(jpeg()), await person.voice(pcm(0.01))):
        assert answer.status == 200, "the apps send these calls again on any other status"
        assert answer.json() == {"code": "TOO_MANY_REQUESTS", "msg": "同时进行的请求过多，请在 1 秒后再试"}
        assert answer.header("retry-after") == "1"
        assert answer.header("ratelimit") == '"account-calls";r=0'
    assert (await other.chat("hi")).json()["code"] == 0
    await stop(running)
    await server.settles()
    # Hung up, finished or failed: each call gives its place back.
    for asked in ("hi", "hi", "[[fault:refuse]] hi", "[[fault:error]] hi", "hi"):
        assert (await person.chat(asked)).status == 200
    assert (await person.voice(b"")).json()["code"] == "GET_FILE_FAIL"
    await start_streams(platform, person, 2)


class TestRedis:
    async def test_two_servers_count_together(self, start_server: Start, redis_server: Redis) -> None:
        common: dict[str, Any] = {"limits": "on", "redis_url": redis_server.url(), "address_requests_per_minute": 6}
        one, other = start_server(**common), start_server(**common)
        assert [(await probe(one.port)).status for _ in range(4)] == [404] * 4
        assert [(await probe(other.port)).status for _ in range(2)] == [404] * 2
        assert [(await probe(server.port)).status for server in (one, other)] == [429, 429]

    async def test_events_are_counted_together_too(self, start_server: Start, redis_server: Redis) -> None:
        common: dict[str, Any] = {"limits": "on", "redis_url": redis_server.url()}
        servers = [start_server(**common) for _ in range(2)]
        answers = [
            (await wire.request(servers[number % 2].port, "POST", "/voiceModel/chat", [], pcm(0.01))).json()["code"]
            for number in range(61)
        ]
        assert answers == [0] * 60 + ["TOO_MANY_REQUESTS"]

    async def test_killed_calls_go_on_and_what_guards_money_is_refused(
        self, start_server: Start, platform: Platform, redis_server: Redis, request: pytest.FixtureRequest
    ) -> None:
        redis: Redis = request.getfixturevalue("own_redis")
        server = start_server(limits="on", redis_url=redis.url())
        person = await server.person()
        running = await start_streams(platform, person, 1)
        redis.kill()
        for _ in range(3):
            assert (await person.chat("hi")).json()["code"] == 0
        assert (await person.voice(pcm(0.01))).json()["code"] == 0
        stranger = await wire.request(server.port, "POST", "/voiceModel/chat", [], pcm(0.01))
        assert (stranger.status, stranger.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
        assert 1 <= int(stranger.header("retry-after") or 0) <= 5
        entry = {"username": "late", "password": "p", "email": ""}
        assert (await post_json(server.port, "/auth/register", entry)).status == 503
        assert (await running[0]).frames()[-1]["header"]["status"] == 2
        redis.start()
        for _ in range(30):
            if (await post_json(server.port, "/auth/register", entry)).status == 200:
                break
            await asyncio.sleep(0.5)
        else:
            pytest.fail("registration stays closed")
        await server.settles()

    @pytest.fixture
    def own_redis(self) -> Any:
        redis = Redis()
        redis.start()
        yield redis
        redis.remove()


class TestBehindAProxy:
    async def test_clients_are_told_apart(self, start_server: Start) -> None:
        server = start_server(limits="on", trusted_proxies=("127.0.0.1",), address_requests_per_minute=2)
        told = ["192.0.2.1", "203.0.113.1, 192.0.2.1", "203.0.113.2, 192.0.2.1"]  # the same client, in disguise
        told += ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1"]  # one network, and another
        statuses = [(await probe(server.port, ("X-Forwarded-For", chain))).status for chain in told]
        assert statuses == [404, 404, 429, 404, 404, 429, 404]

    async def test_without_trust_nobody_is_believed(self, start_server: Start) -> None:
        server = start_server(limits="on", address_requests_per_minute=3)
        answers = [
            await probe(server.port, ("X-Forwarded-For", f"192.0.2.{number}"), ("Forwarded", f"for=192.0.2.{number}"))
            for number in range(4)
        ]
        assert [answer.status for answer in answers] == [404, 404, 404, 429]


async def test_with_limits_off_a_crowd_is_served(start_server: Start, redis_server: Redis) -> None:
    server = start_server(limits="off", redis_url=redis_server.url(), account_concurrent_calls=1)
    person: Person = await open_account(server.port, "crowd")
    answers = await asyncio.gather(*(person.chat("hi") for _ in range(20)))
    assert [answer.json()["code"] for answer in answers] == [0] * 20
    assert answers[0].header("ratelimit") is None
