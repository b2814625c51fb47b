"""The real command in processes of its own: banner, signals, workers, and what the log says and does not say."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from system import wire
from system.harness import (
    PASSWORD,
    Person,
    Platform,
    ServerProcess,
    eventually,
    open_account,
    post_json,
    taken_port,
)
from system.samples import jpeg, pcm

pytestmark = pytest.mark.timeout(90)

SLOW = "[[fault:slow seconds=0.1]] [[fault:frames n=600]]"

Serve = Callable[..., ServerProcess]


async def nothing_is_left(process: ServerProcess) -> None:
    """Nobody of its session lives; multiprocessing's own helper takes a moment to notice that it is alone."""
    await eventually(lambda: process.members() == [], "no process is left", seconds=5)


async def test_without_credentials_the_sandbox_serves_and_everybody_is_told(serve_command: Serve) -> None:
    process = await serve_command().until_ready()
    assert "sandbox" in process.log
    assert f"http://127.0.0.1:{process.port}/docs" in process.log
    assert (await wire.request(process.port, "GET", "/health")).json()["upstream"] == "sandbox"
    assert (await wire.request(process.port, "GET", "/ready")).status == 200
    person = await open_account(process.port, "first")
    assert await person.tokens() == 10_000
    assert (await person.chat("hi")).json()["content"].startswith("[sandbox]")
    answer = await person.stream("spaced")
    came = [chunk.at for chunk in answer.chunks]
    assert came[-1] - came[0] >= 0.01 * len(came), "the sandbox's frames are seen to stream"

    began = time.monotonic()
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0
    assert time.monotonic() - began < 5
    await nothing_is_left(process)
    assert "Traceback" not in process.log


async def test_ctrl_c_when_idle_ends_at_once(serve_command: Serve) -> None:
    process = await serve_command().until_ready()
    process.signal(signal.SIGINT)
    assert await process.ended(seconds=5) == 0
    assert "Traceback" not in process.log


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_running_stream_gets_a_grace_then_an_error_frame_and_a_proper_end(
    serve_command: Serve, platform: Platform, workers: int
) -> None:
    environment = {**platform.address.environment(), "AIPROJECT_SHUTDOWN_GRACE": "1"}
    process = await serve_command(environment, "--workers", str(workers)).until_ready()
    assert (await wire.request(process.port, "GET", "/health")).json()["upstream"] == "iflytek"
    person = await open_account(process.port, "streaming")
    async with wire.Connection(process.port) as stream, wire.Connection(process.port) as quick:
        quick.ask_json("/textModel/stream", person.call("[[fault:slow seconds=0.05]] [[fault:frames n=12]]"))
        stream.ask_json("/textModel/stream", person.call(SLOW))
        answer = await stream.head()
        await stream.chunk(answer)
        process.signal(signal.SIGTERM)
        began = time.monotonic()
        # One that ends by itself within the grace is not touched.
        assert (await quick.answer()).frames()[-1]["header"]["status"] == 2
        while await stream.chunk(answer) is not None:
            pass
        took = time.monotonic() - began
        *frames, last = answer.frames()
        assert answer.is_complete
        assert 0.6 <= took <= 4
        assert len(frames) >= 4
        assert all(frame["header"]["code"] == 0 for frame in frames)
        assert last["header"]["code"] == 20004
        assert last["header"]["message"] == "服务暂时不可用，请稍后再试"
        assert await stream.is_closed()
    assert await process.ended() == 0
    await nothing_is_left(process)
    await eventually(lambda: platform.counts("chat")["open"] == 0, "upstream is let go")
    assert "Traceback" not in process.log


async def test_while_it_stops_new_connections_are_refused_and_new_calls_told_503(
    serve_command: Serve, platform: Platform
) -> None:
    environment = {**platform.address.environment(), "AIPROJECT_SHUTDOWN_GRACE": "3"}
    process = await serve_command(environment).until_ready()
    person = await open_account(process.port, "late")
    async with wire.Connection(process.port) as stream, wire.Connection(process.port) as kept_alive:
        kept_alive.ask("GET", "/health")
        await kept_alive.answer()
        stream.ask_json("/textModel/stream", person.call(SLOW))
        await stream.chunk(await stream.head())
        process.signal(signal.SIGTERM)
        await asyncio.sleep(0.4)
        with pytest.raises(ConnectionError):
            await wire.request(process.port, "GET", "/health")
        kept_alive.ask_json("/textModel/chat", person.call("hi"))
        answer = await kept_alive.answer()
        assert answer.status == 503
        assert int(answer.header("retry-after") or 0) >= 1
        assert answer.json() == {"code": "SERVICE_UNAVAILABLE", "msg": "服务暂时不可用，请稍后再试"}
        kept_alive.ask("GET", "/ready")
        assert (await kept_alive.answer()).status == 503
        # A second signal ends the grace.
        began = time.monotonic()
        process.signal(signal.SIGINT)
        process.signal(signal.SIGINT)
        await process.ended(seconds=5)
        assert time.monotonic() - began < 3
    await nothing_is_left(process)


async def test_workers_share_the_port_and_one_that_dies_is_replaced(serve_command: Serve, platform: Platform) -> None:
    # Twenty answers at once hold 4096 tokens each, and what was asked.
    environment = {**platform.address.environment(), "AIPROJECT_SIGNUP_TOKENS": "100000"}
    process = await serve_command(environment, "--workers", "2").until_ready()
    await eventually(lambda: len(process.workers()) == 2, "two workers run", seconds=30)
    person = await open_account(process.port, "shared")
    answers = await asyncio.gather(*(person.chat(f"question {n}") for n in range(20)))
    spent = sum(answer.json()["consume_token"] for answer in answers)
    assert await person.tokens() == 100_000 - spent

    victim, other = process.workers()
    os.kill(victim, signal.SIGKILL)
    await eventually(
        lambda: len(process.workers()) == 2 and victim not in process.workers(), "another worker runs", seconds=30
    )
    assert other in process.workers()
    for _ in range(10):
        assert (await wire.request(process.port, "GET", "/ready")).status == 200
    assert any(event["event"] == "a worker ended, starting another" for event in process.events())

    process.signal(signal.SIGTERM)
    assert await process.ended() == 0
    await nothing_is_left(process)


async def test_a_stop_while_workers_start_stops_them(serve_command: Serve, platform: Platform) -> None:
    process = serve_command(platform.address.environment(), "--workers", "3")
    await eventually(lambda: len(process.workers()) >= 1, "the first worker starts", seconds=30)
    process.signal(signal.SIGTERM)
    assert await process.ended(seconds=15) == 0
    await nothing_is_left(process)


async def test_workers_do_not_outlive_a_supervisor_that_is_killed(serve_command: Serve, platform: Platform) -> None:
    process = await serve_command(platform.address.environment(), "--workers", "2").until_ready()
    await eventually(lambda: len(process.workers()) == 2, "two workers run", seconds=30)
    process.signal(signal.SIGKILL)
    await process.ended()
    await eventually(lambda: process.members() == [], "no orphan is left", seconds=15)


async def test_a_taken_port_is_told_in_one_line(serve_command: Serve) -> None:
    other, port = taken_port()
    with other:
        process = serve_command({}, "--port", str(port))
        assert await process.ended(seconds=30) == 78
    assert f"cannot listen on 127.0.0.1 port {port}" in process.log
    assert "Traceback" not in process.log


async def test_a_database_that_cannot_be_opened_is_told_in_one_line(serve_command: Serve, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    process = serve_command({"AIPROJECT_DATABASE_URL": f"sqlite:///{tmp_path}/file/x.db"}, "--workers", "2")
    status = await process.ended(seconds=40)
    assert status in (70, 75, 78)
    assert "Traceback" not in process.log
    await nothing_is_left(process)


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({"AIPROJECT_LOG_LEVEL": "loud"}, "AIPROJECT_LOG_LEVEL"),
        ({"AIPROJECT_IFLYTEK_APP_ID": "only one"}, "give all three"),
    ],
)
async def test_a_wrong_setting_is_named(serve_command: Serve, environment: dict[str, str], complaint: str) -> None:
    process = serve_command(environment)
    assert await process.ended(seconds=30) == 78
    assert complaint in process.log
    assert "Traceback" not in process.log


class TestTheLog:
    async def test_a_line_for_each_request_with_its_id_and_the_vendors_sid_and_no_secret(
        self, serve_command: Serve, platform: Platform
    ) -> None:
        address = platform.address
        environment = {**address.environment(), "AIPROJECT_LOG_LEVEL": "debug", "AIPROJECT_UPSTREAM_ATTEMPTS": "1"}
        process = await serve_command(environment).until_ready()
        person = await open_account(process.port, "Somebody Private")
        answers = await self.use_everything(person, platform)

        def request_lines() -> dict[str | None, dict[str, Any]]:
            return {event["request_id"]: event for event in process.events() if event["event"] == "request"}

        # A line is written when its answer has left.
        await eventually(lambda: answers[-1].header("x-request-id") in request_lines(), "the last line is written")
        lines = request_lines()
        for answer in answers:
            line = lines[answer.header("x-request-id")]
            assert line["status"] == answer.status
            assert line["method"] == "POST"
            assert line["ms"] > 0
        for answer in answers[:4]:
            line = lines[answer.header("x-request-id")]
            assert line["outcome"] == "ok"
            assert line["sid"]
            assert line["account"]
        [sid] = {frame["header"]["sid"] for frame in answers[1].frames()}
        assert lines[answers[1].header("x-request-id")]["sid"] == sid
        assert "Traceback" not in process.log
        assert_secret_free(process.log, person, platform)

        process.signal(signal.SIGTERM)
        assert await process.ended() == 0
        assert_secret_free(process.log, person, platform)

    async def use_everything(self, person: Person, platform: Platform) -> list[wire.Answer]:
        answers = [
            await person.chat("PROMPT-TEXT one"),
            await person.stream("PROMPT-TEXT two"),
            await person.voice(pcm(0.3)),
            await person.picture(jpeg()),
            await person.chat("PROMPT-TEXT [[fault:error code=10013]]"),
            await person.stream("PROMPT-TEXT [[fault:error code=10012 at=middle]]"),
            await person.stream("PROMPT-TEXT [[fault:truncate]]"),
            await person.stream("PROMPT-TEXT [[fault:not_json]]"),
            await post_json(person.port, "/auth/login", {"username": person.username, "password": "WRONG-WORD"}),
            await post_json(person.port, "/auth/register", {"username": 5, "password": "WRONG-WORD"}),
            await post_json(person.port, "/textModel/chat", {**person.call("PROMPT-TEXT"), "dialog": "PROMPT-TEXT"}),
            await post_json(person.port, f"/nope?uuid={person.uuid}", {}),
        ]
        for service, call in (("chat", person.chat), ("dictation", None), ("ocr", None)):
            for fault in ("refuse", "drop", "html"):
                platform.order(service, fault)
                if call is not None:
                    answers.append(await call("PROMPT-TEXT"))
                else:
                    answers.append(await (person.voice(pcm(0.1)) if service == "dictation" else person.picture(jpeg())))
        assert all(answer.status in (200, 404) for answer in answers)
        return answers

    async def test_a_clock_that_is_off_is_logged_once(self, serve_command: Serve, platform: Platform) -> None:
        process = await serve_command(platform.address.environment()).until_ready()
        person = await open_account(process.port, "on time")
        platform.order("any", "clock", seconds=1000, times=0)
        for _ in range(3):
            assert (await person.chat("hi")).json()["code"] == 0
            assert (await person.picture(jpeg())).json()["code"] == 0
        warnings = [event for event in process.events() if "clock" in event["event"]]
        assert len(warnings) == 1
        assert warnings[0]["level"] == "warning"
        assert warnings[0]["seconds"] == pytest.approx(1000, abs=10)


def assert_secret_free(log: str, person: Person, platform: Platform) -> None:
    address = platform.address
    for secret in (
        person.uuid,
        person.password,
        "WRONG-WORD",
        address.api_secret,
        address.api_key,
        "authorization=",
        "PROMPT-TEXT",
        "[sandbox]",
        person.username,
        json.dumps(PASSWORD),
    ):
        assert secret not in log, secret
