"""Calls that wait for quota held by other calls of their account, on each database and between two processes."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Collection

import pytest
import sqlalchemy as sa

from aiproject.accounts.api_keys.model import KeyTerms
from aiproject.accounts.api_keys.service import ApiKeys
from aiproject.accounts.core.model import Account
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.schema import user as users
from aiproject.errors import QuotaBusy, Unavailable
from aiproject.ledger.model import Hold, Meter, Outcome, Stage
from aiproject.ledger.service import LeaseTimes, Quotas
from aiproject.ledger.verify import verify
from bookkeeping import open_account, reread

LEASES = LeaseTimes(30)
WAIT = 5.0

request_ids = (f"waiting {number}" for number in itertools.count())


@pytest.fixture
async def quotas(database: Database) -> AsyncIterator[Quotas]:
    async with Quotas.running(database, LEASES, wait=WAIT) as engine:
        yield engine
    assert [str(difference) async for difference in verify(database)] == []


@pytest.fixture
async def rival(quotas: Quotas, database_url: str) -> AsyncIterator[Quotas]:
    """The engine of another process: with connections of its own."""
    elsewhere = await Database.open(database_url)
    try:
        async with Quotas.running(elsewhere, LEASES, wait=WAIT) as engine:
            yield engine
    finally:
        await elsewhere.close()


async def hold(quotas: Quotas, account: Account, amount: int, key_id: int | None = None) -> Hold:
    return await quotas.hold(account, Meter.TOKENS, amount, request_id=next(request_ids), key_id=key_id)


async def finish(quotas: Quotas, hold: Hold) -> None:
    assert await quotas.settle(hold, Outcome.FINISHED, Stage.LAST_FRAME, reported=hold.amount) == hold.amount


async def held_tokens(database: Database) -> int:
    async with database.connect() as connection:
        return int((await connection.execute(sa.select(users.c.HeldTokens))).scalar_one())


async def test_all_calls_that_the_balance_pays_are_served_in_order(database: Database, quotas: Quotas) -> None:
    alice = await open_account(database, "alice", tokens=300)
    keys = [
        (await ApiKeys(database).create(alice.account_id, KeyTerms(name), {})).key.key_id for name in ("one", "two")
    ]
    first = await hold(quotas, alice, 250)
    served: list[int] = []

    async def call(number: int) -> None:
        held = await hold(quotas, alice, (90, 10, 60)[number % 3], keys[number % 2])
        served.append(number)
        await asyncio.sleep(0.01)
        await quotas.settle(held, Outcome.FINISHED, Stage.LAST_FRAME, reported=5)

    # One after the other, so that it is known in which order they came.
    calls = []
    for number in range(12):
        calls.append(asyncio.create_task(call(number)))
        await asyncio.sleep(0.01)
        # The first has been refused and waits by now; the others join behind it without an attempt of their own.
        async with asyncio.timeout(10):
            while not quotas._queue._lines:  # noqa: ASYNC110 - the queue tells nobody of a new line
                await asyncio.sleep(0.01)
    assert served == []  # also those for which enough is free
    await quotas.settle(first, Outcome.FINISHED, Stage.LAST_FRAME, reported=7)
    await asyncio.gather(*calls)
    assert served == list(range(12))
    assert (await reread(database, "alice")).tokens == 300 - 7 - 12 * 5
    assert await held_tokens(database) == 0


async def test_what_another_process_frees_is_found_within_a_second_or_so(
    database: Database, quotas: Quotas, rival: Quotas, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await open_account(database, "alice", tokens=100)
    looks = 0
    read = quotas._queue._read

    async def counted(account_ids: Collection[int]) -> object:
        nonlocal looks
        looks += 1
        return await read(account_ids)

    monkeypatch.setattr(quotas._queue, "_read", counted)
    theirs = await hold(rival, alice, 100)
    calls = [asyncio.create_task(hold(quotas, alice, 30)) for _ in range(3)]
    await asyncio.sleep(0.2)
    assert not any(call.done() for call in calls)
    await rival.settle(theirs, Outcome.FINISHED, Stage.LAST_FRAME, reported=10)
    ours = await asyncio.wait_for(asyncio.gather(*calls), 2.5)
    assert looks == 1  # of all three calls together
    for each in ours:
        await finish(quotas, each)
    assert (await reread(database, "alice")).tokens == 0


async def test_a_grant_serves_who_waits_while_nothing_is_locked(database: Database, quotas: Quotas) -> None:
    alice = await open_account(database, "alice", tokens=100)
    running = await hold(quotas, alice, 80)
    call = asyncio.create_task(hold(quotas, alice, 50))
    await asyncio.sleep(0.05)
    await asyncio.wait_for(quotas.grant(alice, tokens=30), 1)
    await finish(quotas, await asyncio.wait_for(call, 1))
    await finish(quotas, running)


@pytest.mark.parametrize("wait", [0.0, 0.4])
async def test_in_vain_the_wait_ends_in_time_and_leaves_nothing(database: Database, wait: float) -> None:
    alice = await open_account(database, "alice", tokens=100)
    async with Quotas.running(database, LEASES, wait=wait) as quotas:
        running = await hold(quotas, alice, 80)
        began = time.monotonic()
        calls = await asyncio.gather(*(hold(quotas, alice, 50) for _ in range(5)), return_exceptions=True)
        assert {type(call) for call in calls} == {QuotaBusy}
        assert time.monotonic() - began < wait + 1
        assert await held_tokens(database) == 80
        await finish(quotas, running)


async def test_who_leaves_and_who_meets_a_stop_wait_no_longer(database: Database) -> None:
    alice = await open_account(database, "alice", tokens=100)
    async with Quotas.running(database, LEASES, wait=WAIT) as quotas:
        running = await hold(quotas, alice, 80)
        leaving, staying = (asyncio.create_task(hold(quotas, alice, units)) for units in (50, 60))
        await asyncio.sleep(0.05)
        leaving.cancel()
        quotas.stop_waiting()
        ended = await asyncio.wait_for(asyncio.gather(leaving, staying, return_exceptions=True), 1)
        assert [type(each) for each in ended] == [asyncio.CancelledError, Unavailable]
        await finish(quotas, running)
    assert await held_tokens(database) == 0
    assert [str(difference) async for difference in verify(database)] == []
