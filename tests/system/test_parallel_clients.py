"""Two hundred clients of one account at once, with money for thirty-seven: exactly thirty-seven are served."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from crash import Node
from system.charged import Books, Caller, caller_of, cluster, opened_books
from system.harness import Platform

CLIENTS = 200
AFFORDABLE = 37
ANSWER_TOKENS = 12


async def ask_at_once(caller: Caller, service: str, *, with_keys: bool = False) -> Counter[object]:
    """Make the same call for every client; return how often each ``code`` came back."""
    answers = await asyncio.gather(
        *(caller.ask(service, f"client {number}" if with_keys else None) for number in range(CLIENTS))
    )
    return Counter(
        answer.frames()[-1]["header"]["code"] if answer.chunks else answer.json()["code"] for answer in answers
    )


async def expect_spent(books: Books, caller: Caller, column: str, each: int) -> None:
    """Thirty-seven charges, nothing held and nothing left."""
    assert await books.charges(caller.account) == [each] * AFFORDABLE
    assert [hold["state"] for hold in await books.holds(caller.account)] == ["captured"] * AFFORDABLE
    row = await books.balance(caller.account)
    assert row[column] == 0
    assert row[f"Held{column}"] == 0


@pytest.fixture
async def books(database_url: str) -> AsyncIterator[Books]:
    async with opened_books(database_url) as opened:
        yield opened


@pytest.fixture
async def node(books: Books, database_url: str, platform: Platform, tmp_path: Path) -> AsyncIterator[Node]:
    """A server of two processes, both of which serve."""
    settings = {"spark_max_tokens": str(ANSWER_TOKENS)}
    environment = platform.address.environment()
    async with cluster(1, database_url, environment, tmp_path, "--workers", "2", **settings) as (node,):
        # On a busy machine one of them may take a hundred calls before the other takes its first.
        guest = await caller_of(books, node, pic_times=1_000_000)
        async with asyncio.timeout(30):
            while len({hold["owner"] for hold in await books.holds(guest.account)}) < 2:
                await asyncio.gather(*(guest.ask("picture") for _ in range(8)))
        yield node


async def test_a_crowd_cannot_overspend(node: Node, books: Books) -> None:
    """In one test, for a server of two processes takes seconds to start."""
    await pictures(node, books, with_keys=False)
    await pictures(node, books, with_keys=True)
    await chats_that_give_nothing_back(node, books, "chat")
    await chats_that_give_nothing_back(node, books, "stream")
    await chats_that_give_something_back(node, books)


async def pictures(node: Node, books: Books, *, with_keys: bool) -> None:
    caller = await caller_of(books, node, pic_times=AFFORDABLE)
    codes = await ask_at_once(caller, "picture", with_keys=with_keys)
    assert codes == {0: AFFORDABLE, "PIC_TIMES_NOT_ENOUGH": CLIENTS - AFFORDABLE}
    await expect_spent(books, caller, "PicTimes", 1)


async def chats_that_give_nothing_back(node: Node, books: Books, service: str) -> None:
    """Each holds its question and the longest answer, and its answer is that long."""
    full = await cost_of_a_full_answer(node, books)
    caller = await caller_of(books, node, tokens=AFFORDABLE * full)
    codes = await ask_at_once(caller, service)
    assert codes == {0: AFFORDABLE, "TOKEN_NOT_ENOUGH": CLIENTS - AFFORDABLE}
    await expect_spent(books, caller, "Tokens", full)


async def chats_that_give_something_back(node: Node, books: Books) -> None:
    """The crowd comes until the rest is too small for a question: answers get shorter, and nothing goes below zero."""
    full = await cost_of_a_full_answer(node, books)
    money = 10 * full + 5
    caller = await caller_of(books, node, tokens=money)
    served = 0
    while answered := (await ask_at_once(caller, "stream"))[0]:
        served += answered
    row = await books.balance(caller.account)
    assert 0 <= row["Tokens"] <= full - ANSWER_TOKENS
    assert row["HeldTokens"] == 0
    charges = await books.charges(caller.account)
    assert len(charges) == served > 10
    assert sum(charges) + row["Tokens"] == money


async def cost_of_a_full_answer(node: Node, books: Books) -> int:
    taster = await caller_of(books, node)
    await taster.ask("chat")
    (tasted,) = await books.holds(taster.account)
    assert tasted["charged"] == tasted["amount"]
    return int(tasted["amount"])
