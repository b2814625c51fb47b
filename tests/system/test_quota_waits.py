"""Calls that wait for quota which their account's other calls hold: all are served, and none waits for nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from system import wire
from system.harness import LocalServer, Platform, eventually

SLOW = "slow [[fault:slow seconds=0.05]]"


async def test_many_chats_on_a_balance_for_few_are_all_answered(server: LocalServer) -> None:
    person = await server.person()
    await server.set_balance(person, tokens=5000)  # one answer is held with 4096 and more, and costs far less
    calls = [person.chat(f"question {number}") if number % 2 else person.stream("question") for number in range(20)]
    answers = await asyncio.gather(*calls)
    assert all(answer.status == 200 and answer.is_complete for answer in answers)
    assert not any(b"NOT_ENOUGH" in answer.body for answer in answers)
    assert 0 < await person.tokens() < 5000


async def test_a_client_that_hangs_up_waits_no_longer(server: LocalServer, platform: Platform) -> None:
    person = await server.person()
    await server.set_balance(person, tokens=4200)
    completed = platform.counts("chat")["completed"]
    running = asyncio.create_task(person.chat(SLOW))
    await eventually(lambda: platform.counts("chat")["open"] == 1, "the call reached the platform")
    tasks = server.task_count()
    async with wire.Connection(person.port) as connection:
        connection.ask_json("/textModel/stream", person.call("a question " * 50))
        await asyncio.sleep(0.2)
        assert server.task_count() > tasks, "it waits"
        connection.reset()
    await eventually(lambda: server.task_count() <= tasks, "it waits no longer", seconds=0.5)
    assert not running.done()
    assert [(await answer).json()["code"] for answer in (running, person.chat("hi"))] == [0, 0]
    assert platform.counts("chat")["completed"] == completed + 2, "it was never asked"


async def test_a_stopping_server_refuses_who_waits_at_once(
    start_server: Callable[..., LocalServer], platform: Platform
) -> None:
    server = start_server(quota_wait=60, shutdown_grace=20)
    person = await server.person()
    await server.set_balance(person, tokens=4200)
    running = asyncio.create_task(person.chat(SLOW))
    await eventually(lambda: platform.counts("chat")["open"] == 1, "the call reached the platform")
    waiting = asyncio.create_task(person.chat("a question " * 50))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    began = time.monotonic()
    server.begin_to_stop()
    answer = await waiting
    assert (answer.status, answer.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert time.monotonic() - began < 1
    assert (await running).json()["code"] == 0
