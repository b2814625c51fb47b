"""A client that hangs up in mid-answer has used what was generated: the answer is read on, and what it really cost is
charged. With ``AIPROJECT_CLIENT_GONE_DRAIN=0`` it is cut off at once, and an estimate is charged.

Calls with an Idempotency-Key, which are read to their end in any case, are in test_idempotency.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aiproject.protocols.iflytek.spark.estimate import estimate_tokens
from system import wire
from system.charged import Books, Caller, caller_of, cluster, opened_books
from system.harness import Platform, eventually

PROMPT = "你好"
GAP = 0.1  # seconds between upstream's frames
ANSWER_TOKENS = 30


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    async with opened_books(f"sqlite:///{tmp_path / 'books.db'}") as opened:
        yield opened


@pytest.fixture
async def caller(
    request: pytest.FixtureRequest, books: Books, platform: Platform, tmp_path: Path
) -> AsyncIterator[Caller]:
    """Of a server whose ``client_gone_drain`` is the test's parameter; ``None``: the default."""
    settings = {"spark_max_tokens": str(ANSWER_TOKENS)}
    if request.param is not None:
        settings["client_gone_drain"] = request.param
    url = f"sqlite:///{tmp_path / 'books.db'}"
    async with cluster(1, url, platform.address.environment(), tmp_path, **settings) as (node,):
        yield await caller_of(books, node)


async def leave(caller: Caller, service: str) -> str:
    """Ask, read two frames of a stream (of a chat nothing), and hang up; return what was read."""
    async with wire.Connection(caller.port) as connection:
        caller.begin(connection, service, prompt=PROMPT)
        read = ""
        if service == "stream":
            answer = await connection.head()
            await connection.chunk(answer)
            await connection.chunk(answer)
            for frame in answer.frames():
                read += frame["payload"]["choices"]["text"][0]["content"]
        else:
            await asyncio.sleep(GAP * 2.5)
        connection.reset()
    return read


async def settled(books: Books, caller: Caller, *, seconds: float = 10.0) -> dict[str, Any]:
    """Wait until the one hold of the account is closed; return it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        (row,) = await books.holds(caller.account)
        if row["state"] != "open":
            return row
        await asyncio.sleep(0.02)
    pytest.fail("the hold stays open")


@pytest.mark.parametrize("service", ["chat", "stream"])
@pytest.mark.parametrize("caller", [None], indirect=True)
async def test_the_answer_is_read_on_and_its_usage_charged(
    service: str, caller: Caller, books: Books, platform: Platform
) -> None:
    platform.order("chat", "slow", seconds=GAP)
    before = platform.counts("chat")
    await leave(caller, service)
    row = await settled(books, caller)
    assert (row["state"], row["outcome"], row["stage"]) == ("captured", "client gone", "last frame")
    assert row["charged"] == row["reported"] == estimate_tokens(PROMPT) + ANSWER_TOKENS
    assert row["sid"]
    assert await books.charges(caller.account) == [row["charged"]]
    after = platform.counts("chat")
    assert after["completed"] == before["completed"] + 1
    assert after["closed_early"] == before["closed_early"]


@pytest.mark.parametrize("caller", ["0"], indirect=True)
async def test_without_patience_it_is_cut_off_and_an_estimate_charged(
    caller: Caller, books: Books, platform: Platform
) -> None:
    platform.order("chat", "slow", seconds=GAP)
    before = platform.counts("chat")
    read = await leave(caller, "stream")
    row = await settled(books, caller, seconds=GAP * 5)
    assert (row["state"], row["outcome"], row["stage"]) == ("captured", "client gone", "first frame")
    assert row["reported"] is None
    least = estimate_tokens(PROMPT) + estimate_tokens(read)
    assert least <= row["charged"] < estimate_tokens(PROMPT) + ANSWER_TOKENS
    assert await books.charges(caller.account) == [row["charged"]]
    await until_closed_early(platform, before["closed_early"] + 1)


@pytest.mark.parametrize("caller", ["0.5"], indirect=True)
async def test_patience_has_its_bound(caller: Caller, books: Books, platform: Platform) -> None:
    """A stalled upstream does not hold the call for longer; what had come by then is charged."""
    platform.order("chat", "stall", at="middle", after=3, seconds=60)
    before = platform.counts("chat")
    began = time.monotonic()
    read = await leave(caller, "stream")
    row = await settled(books, caller)
    assert 0.4 < time.monotonic() - began < 5
    assert (row["state"], row["outcome"], row["stage"]) == ("captured", "client gone", "first frame")
    assert row["charged"] >= estimate_tokens(PROMPT) + estimate_tokens(read)
    await until_closed_early(platform, before["closed_early"] + 1)


@pytest.mark.parametrize("caller", [None, "0"], indirect=True)
async def test_who_leaves_before_the_first_frame_pays_the_question(
    caller: Caller, books: Books, platform: Platform
) -> None:
    platform.order("chat", "stall", at="first", seconds=60)
    before = platform.counts("chat")
    async with wire.Connection(caller.port) as connection:
        caller.begin(connection, "stream", prompt=PROMPT)
        await eventually(lambda: platform.counts("chat")["open"] > 0, "upstream is asked")
        await asyncio.sleep(0.1)
        connection.reset()
    row = await settled(books, caller)
    assert (row["state"], row["outcome"], row["stage"]) == ("captured", "client gone", "sent")
    assert await books.charges(caller.account) == [estimate_tokens(PROMPT)]
    await until_closed_early(platform, before["closed_early"] + 1)


@pytest.mark.parametrize("caller", [None], indirect=True)
async def test_an_answer_that_fails_behind_the_clients_back_is_not_charged(
    caller: Caller, books: Books, platform: Platform
) -> None:
    platform.order("chat", "error", code=10014, at="middle", after=5)
    platform_prompt = "[[fault:slow seconds=0.1]] " + PROMPT
    async with wire.Connection(caller.port) as connection:
        caller.begin(connection, "stream", prompt=platform_prompt)
        await connection.chunk(await connection.head())
        connection.reset()
    row = await settled(books, caller)
    assert (row["state"], row["outcome"]) == ("released", "moderated")
    assert await books.charges(caller.account) == []


async def until_closed_early(platform: Platform, number: int) -> None:
    """Upstream hears of it: it need not go on."""
    await eventually(lambda: platform.counts("chat")["closed_early"] >= number, "upstream is cut off")
