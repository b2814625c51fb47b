"""Balances under load: exact, never below zero, and a small one gives a short answer."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from aiproject.codes import Detail
from aiproject.messages.formatting import Language, format_message
from aiproject.protocols.iflytek.spark.estimate import estimate_tokens
from system import wire
from system.harness import LocalServer, Platform, estimated, eventually, question
from system.samples import jpeg, pcm


async def test_three_times_give_three_pictures_however_many_ask_at_once(server: LocalServer) -> None:
    person = await server.person()
    await server.set_balance(person, pictures=3)
    answers = [answer.json() for answer in await asyncio.gather(*(person.picture(jpeg()) for _ in range(12)))]
    assert Counter(answer["code"] for answer in answers) == {0: 3, "PIC_TIMES_NOT_ENOUGH": 9}
    assert all("content" in answer for answer in answers if answer["code"] == 0)
    assert all("content" not in answer for answer in answers if answer["code"] != 0)
    assert await person.pictures() == 0


async def test_a_picture_that_fails_gives_its_time_back(server: LocalServer, platform: Platform) -> None:
    person = await server.person()
    await server.set_balance(person, pictures=1)
    platform.order("ocr", "error", code=10009, times=1)
    assert (await person.picture(jpeg())).json()["code"] == "PICTURE_TO_TEXT_ERROR"
    assert await person.pictures() == 1
    assert (await person.picture(b"no picture")).json()["code"] == "FILE_FORMAT_ILLEGAL"
    assert await person.pictures() == 1
    assert (await person.picture(jpeg())).json()["code"] == 0
    assert await person.pictures() == 0


async def test_seconds_of_sound_are_taken_by_the_millisecond_and_never_twice(
    start_server: Callable[..., LocalServer],
) -> None:
    server = start_server(signup_voice_seconds=1)
    person = await server.person()
    answers = [answer.json() for answer in await asyncio.gather(*(person.voice(pcm(0.25)) for _ in range(10)))]
    assert Counter(answer["code"] for answer in answers) == {0: 4, "VOICE_SECONDS_NOT_ENOUGH": 6}


def told(answer: wire.Answer) -> int:
    """What an answer, whole or streamed, says that it cost."""
    if b"consume_token" in answer.body:
        return int(answer.json()["consume_token"])
    return int(answer.frames()[-1]["payload"]["usage"]["text"]["total_tokens"])


class TestSmallBalances:
    async def test_upstream_is_asked_for_no_more_than_is_left(self, server: LocalServer, platform: Platform) -> None:
        person = await server.person()
        asked = "a short question"
        await server.set_balance(person, tokens=estimate_tokens(asked) + 7)
        answer = (await person.chat(asked)).json()
        assert answer["code"] == 0
        assert platform.last("chat")["max_tokens"] == 7
        assert estimate_tokens(answer["content"]) <= 7
        assert await person.tokens() == estimate_tokens(asked) + 7 - answer["consume_token"] >= 0

    async def test_a_large_one_changes_nothing(self, server: LocalServer, platform: Platform) -> None:
        person = await server.person()
        assert (await person.chat("a short question")).json()["code"] == 0
        assert platform.last("chat")["max_tokens"] == 4096

    async def test_the_stream_is_cut_too(self, server: LocalServer, platform: Platform) -> None:
        person = await server.person()
        await server.set_balance(person, tokens=20)
        frames = (await person.stream("你好")).frames()
        assert platform.last("chat")["max_tokens"] == 20 - estimate_tokens("你好")
        assert frames[-1]["header"]["status"] == 2
        assert await person.tokens() == 20 - frames[-1]["payload"]["usage"]["text"]["total_tokens"]

    @pytest.mark.parametrize("way", ["chat", "stream"])
    async def test_twenty_at_once_do_not_overdraw_it(self, server: LocalServer, way: str) -> None:
        person = await server.person()
        await server.set_balance(person, tokens=300)
        ask = person.chat if way == "chat" else person.stream
        answers = await asyncio.gather(*(ask(f"question number {n}") for n in range(20)))
        left = await person.tokens()
        assert 0 <= left <= 300
        assert all(answer.status == 200 and answer.is_complete for answer in answers)
        answered = [answer for answer in answers if b"NOT_ENOUGH" not in answer.body]
        assert answered
        assert left == 300 - sum(map(told, answered))
        assert (await person.chat("once more, with more words than are left")).json()["code"] in (
            0,
            "TOKEN_NOT_ENOUGH",
        )
        assert await person.tokens() >= 0


async def test_many_chats_of_one_account_add_up(server: LocalServer) -> None:
    person = await server.person()
    answers = await asyncio.gather(*(person.chat(f"question {n}") for n in range(60)))
    spent = sum(answer.json()["consume_token"] for answer in answers)
    assert await person.tokens() == 1_000_000 - spent


async def test_what_a_running_call_holds_nobody_else_can_use(
    start_server: Callable[..., LocalServer], platform: Platform
) -> None:
    server = start_server(quota_wait=0)
    person = await server.person()
    slow = "slow [[fault:slow seconds=0.05]]"
    task = asyncio.create_task(person.chat(slow))
    await eventually(lambda: platform.counts("chat")["open"] == 1, "the call reached the platform")
    await server.set_balance(person, tokens=1)
    held = estimated(question(slow), "") + 4096
    assert await person.tokens() == held, "the operator takes what is not held"
    assert (await person.chat("hi")).json() == {
        "code": "TOKEN_NOT_ENOUGH",
        "msg": format_message(Detail.QUOTA_BUSY, Language.ZH),
    }
    answer = (await task).json()
    assert answer["code"] == 0
    assert answer["content"]
    assert await person.tokens() == held - answer["consume_token"]
    assert (await person.chat("hi")).json()["code"] == 0, "the rest of it is free again"
    assert platform.counts("chat")["open"] == 0
