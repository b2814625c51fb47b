"""Ways to use the model for nothing, as an attacker tried them: each costs what it uses, or runs into the bound."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
import websockets

from aiproject.adapters.db.schema import operator_loss
from aiproject.protocols.iflytek.spark.estimate import estimate_tokens
from system import wire
from system.charged import Books
from system.harness import LocalServer, Person, Platform, estimated, eventually, question

ROUNDS = 12
BOUND = 300


async def tokens_become(person: Person, expected: int) -> None:
    """Wait for the booking, which comes after the hang-up."""
    for _ in range(100):
        if await person.tokens() == expected:
            return
        await asyncio.sleep(0.05)
    assert await person.tokens() == expected


async def test_hanging_up_right_after_the_question_costs_the_question(
    start_server: Callable[..., LocalServer], platform: Platform
) -> None:
    server = start_server()
    person = await server.person()
    asked = "[[fault:stall at=first seconds=60]] " + "a question of many words " * 40

    async def ask_and_hang_up() -> None:
        before = platform.counts("chat")["open"]
        async with wire.Connection(person.port) as connection:
            connection.ask_json("/textModel/stream", person.call(asked))
            await eventually(lambda: platform.counts("chat")["open"] > before, "the question is sent")
            await asyncio.sleep(0.05)
            connection.reset()
        await eventually(lambda: platform.counts("chat")["open"] == before, "upstream is let go")

    for _ in range(ROUNDS):
        await ask_and_hang_up()
    await tokens_become(person, 1_000_000 - ROUNDS * estimated(question(asked), ""))
    await server.settles()
    await server.assert_books_add_up()


async def test_answers_that_moderation_stops_in_the_end_are_free_up_to_the_bound(
    start_server: Callable[..., LocalServer],
) -> None:
    server = start_server(unpaid_tokens_per_day=BOUND)
    person = await server.person()
    asked = "a story [[fault:frames n=30]] [[fault:error code=10014 at=middle after=28]]"
    seen = 0
    for _ in range(ROUNDS):
        *frames, last = (await person.stream(asked)).frames()
        assert last["header"]["code"] == 10014
        text = "".join(frame["payload"]["choices"]["text"][0]["content"] for frame in frames)
        seen += estimated(question(asked), text)
    assert seen > 2 * BOUND, "the answers were read"
    assert await person.tokens() == 1_000_000 - (seen - BOUND)
    async with server.database() as database, server.accounts() as (accounts, _):
        losses = await Books(database).rows(operator_loss, await accounts.named(person.username))
    assert {row["reason"] for row in losses} == {"moderated"}
    assert sum(row["unpaid"] for row in losses) == sum(row["amount"] for row in losses) == BOUND
    await server.assert_books_add_up()


async def test_a_chat_that_fails_counts_with_its_question(start_server: Callable[..., LocalServer]) -> None:
    server = start_server(unpaid_tokens_per_day=0)
    person = await server.person()
    asked = "a story [[fault:error code=10014 at=middle]]"
    assert (await person.chat(asked)).json()["code"] == "MODEL_ERROR"
    assert await person.tokens() == 1_000_000 - estimated(question(asked), "")
    refused = "a story [[fault:error code=11202 at=first]]"
    assert (await person.chat(refused)).json()["code"] == "MODEL_ERROR"
    assert await person.tokens() == 1_000_000 - estimated(question(asked), ""), "refused unanswered, it is free"
    await server.assert_books_add_up()


async def test_a_prompt_of_white_space_is_as_long_as_it_is(server: LocalServer) -> None:
    person = await server.person()
    answer = await person.chat("a" + " " * 1_900_000 + "b")
    assert await person.tokens() == 1_000_000
    assert answer.json()["code"] == "MODEL_ERROR", "more than the model's context; two tokens would not have been"
    await server.set_balance(person, tokens=400_000)
    assert (await person.chat("a" + " " * 1_900_000 + "b")).json()["code"] == "TOKEN_NOT_ENOUGH"


class Thinker:
    """An upstream that thinks aloud and never comes to an end."""

    THOUGHT = "想" * 300

    async def answer(self, websocket: Any) -> None:
        await websocket.recv()
        for seq in range(10):
            element = {"content": "", "reasoning_content": self.THOUGHT, "role": "assistant", "index": 0}
            choices = {"status": 0 if seq == 0 else 1, "seq": seq, "text": [element]}
            header = {"code": 0, "message": "Success", "sid": "cht1", "status": choices["status"]}
            await websocket.send(json.dumps({"header": header, "payload": {"choices": choices}}))
        await websocket.wait_closed()


async def test_thoughts_are_charged_when_their_reader_hangs_up(start_server: Callable[..., LocalServer]) -> None:
    async with websockets.serve(Thinker().answer, "127.0.0.1", 0, compression=None) as upstream:
        port = next(iter(upstream.sockets)).getsockname()[1]
        server = start_server(
            spark_url=f"ws://127.0.0.1:{port}/v1/x1", spark_domain="x1", client_gone_drain=0, upstream_timeout=30
        )
        person = await server.person()
        async with wire.Connection(person.port) as connection:
            connection.ask_json("/textModel/stream", person.call("hi"))
            answer = await connection.head()
            for _ in range(10):
                await connection.chunk(answer)
            connection.reset()
        expected = estimated(question("hi"), "") + estimate_tokens(Thinker.THOUGHT * 10)
        await tokens_become(person, 1_000_000 - expected)
        await server.settles()


@pytest.mark.parametrize("way", ["chat", "stream"])
async def test_somebody_else_s_failures_do_not_use_the_bound_up(
    start_server: Callable[..., LocalServer], way: str
) -> None:
    server = start_server(unpaid_tokens_per_day=BOUND)
    attacker, innocent = await server.person(), await server.person()
    asked = "a story " * 30 + "[[fault:truncate after=2]]"
    for _ in range(10):
        await (attacker.stream if way == "stream" else attacker.chat)(asked)
    assert await attacker.tokens() < 1_000_000
    await (innocent.stream if way == "stream" else innocent.chat)(asked)
    assert await innocent.tokens() == 1_000_000
