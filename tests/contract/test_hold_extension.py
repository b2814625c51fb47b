"""Holds that grow slice by slice, on each database: exact, within the account's quota and its API keys' limits."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa

from aiproject.accounts.api_keys.model import KeyTerms, SpendCap
from aiproject.accounts.api_keys.service import ApiKeys
from aiproject.accounts.core.model import Account
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.errors import CommitInDoubt
from aiproject.adapters.db.schema import hold as holds
from aiproject.adapters.db.schema import user as users
from aiproject.ledger.batcher import LedgerBatcher
from aiproject.ledger.model import Hold, Meter, Outcome, Stage
from aiproject.ledger.service import LeaseTimes, Quotas
from aiproject.ledger.verify import verify
from bookkeeping import open_account, reread
from troubled_writer import TroubledWriter

LEASES = LeaseTimes(30)

request_ids = (f"extended {number}" for number in itertools.count())


@pytest.fixture
async def writer(database: Database) -> TroubledWriter:
    return TroubledWriter(database)


@pytest.fixture
async def quotas(database: Database, writer: TroubledWriter) -> AsyncIterator[Quotas]:
    """One process's engine; what a test did with it must leave a ledger that adds up."""
    batcher = LedgerBatcher(database, writer)
    yield Quotas(database, LEASES, batcher)
    await batcher.close()
    assert [str(difference) async for difference in verify(database)] == []


async def hold(quotas: Quotas, account: Account, amount: int, *, meter: Meter = Meter.TOKENS, **more: Any) -> Hold:
    return await quotas.hold(account, meter, amount, request_id=next(request_ids), **more)


async def finish(quotas: Quotas, hold: Hold, used: int) -> int:
    return await quotas.settle(hold, Outcome.FINISHED, Stage.LAST_FRAME, reported=used)


async def held_tokens(database: Database) -> int:
    async with database.connect() as connection:
        return int((await connection.execute(sa.select(users.c.HeldTokens))).scalar_one())


class TestSlices:
    async def test_a_call_holds_slice_by_slice_and_is_settled_against_the_whole(
        self, database: Database, quotas: Quotas
    ) -> None:
        alice = await open_account(database, "alice", tokens=100)
        call = await hold(quotas, alice, 10)
        for expected in (40, 70, 100, 100):  # the quota ends there
            call = await quotas.extend(call, 30)
            assert call.amount == expected
            assert await held_tokens(database) == expected
        assert await finish(quotas, call, 83) == 83
        assert (await reread(database, "alice")).tokens == 17
        assert await held_tokens(database) == 0

    async def test_a_slice_is_cut_to_what_other_calls_leave(self, database: Database, quotas: Quotas) -> None:
        alice = await open_account(database, "alice", tokens=100)
        other, call = await hold(quotas, alice, 60), await hold(quotas, alice, 10)
        call = await quotas.extend(call, 50)
        assert call.amount == 40
        assert await finish(quotas, other, 60) == 60
        assert (await quotas.extend(call, 50)).amount == 40
        assert await finish(quotas, call, 50) == 40  # never more than was held

    async def test_what_nobody_counts_is_granted_whole(self, database: Database, quotas: Quotas) -> None:
        alice = await open_account(database, "alice")
        call = await hold(quotas, alice, 0, meter=Meter.VOICE_SECONDS)
        assert (await quotas.extend(call, 5000)).amount == 5000
        assert await finish(quotas, await quotas.extend(call, 5000), 4100) == 4100
        nobody = Hold(None, Meter.VOICE_SECONDS, 10, "anonymous")
        assert (await quotas.extend(nobody, 5)).amount == 15

    async def test_a_hold_from_unmetered_times_does_not_take_more_than_is_free(
        self, database: Database, quotas: Quotas
    ) -> None:
        alice = await open_account(database, "alice")
        call = await hold(quotas, alice, 9000, meter=Meter.VOICE_SECONDS)
        await quotas.grant(alice, voice_seconds=5)
        assert (await quotas.extend(call, 1000)).amount == 9000
        assert await finish(quotas, call, 9000) == 5000

    @pytest.mark.parametrize("end", ["settled", "swept", "disabled"])
    async def test_a_call_that_may_not_go_on_gets_nothing(self, database: Database, quotas: Quotas, end: str) -> None:
        alice = await open_account(database, "alice", tokens=100)
        call = await hold(quotas, alice, 10, prompt_estimate=3)
        async with database.begin() as connection:
            if end == "swept":
                await connection.execute(sa.update(holds).values(lease_until=0))
            elif end == "disabled":
                await connection.execute(sa.update(users).values(DisabledAt=sa.func.current_timestamp()))
        if end == "settled":
            await finish(quotas, call, 4)
        assert await quotas.sweep() == (1 if end == "swept" else 0)
        assert await quotas.extend(call, 20) == call
        assert await held_tokens(database) == (10 if end == "disabled" else 0)
        await finish(quotas, call, 4)

    async def test_less_than_nothing_is_refused(self, database: Database, quotas: Quotas) -> None:
        with pytest.raises(ValueError, match="less than nothing"):
            await quotas.extend(Hold(1, Meter.TOKENS, 10, "r"), -1)

    async def test_many_at_once_share_what_there_is(self, database: Database, quotas: Quotas) -> None:
        alice = await open_account(database, "alice", tokens=100)
        calls = await asyncio.gather(*(hold(quotas, alice, 5) for _ in range(8)))
        async with Quotas.running(database, LEASES) as rival:
            engines = itertools.cycle([quotas, rival])
            calls = await asyncio.gather(*(next(engines).extend(call, 20) for call in calls))
        assert sum(call.amount for call in calls) == 100
        charged = await asyncio.gather(*(finish(quotas, call, call.amount) for call in calls))
        assert charged == [call.amount for call in calls]
        assert (await reread(database, "alice")).tokens == 0


class TestRepeats:
    @pytest.mark.parametrize("when", ["after", "instead"])
    async def test_a_commit_in_doubt_extends_once(
        self, database: Database, quotas: Quotas, writer: TroubledWriter, when: str
    ) -> None:
        alice = await open_account(database, "alice", tokens=100)
        call = await hold(quotas, alice, 10)
        writer.trouble(CommitInDoubt("connection lost while committing"), when=when)
        assert (await quotas.extend(call, 20)).amount == 30
        assert await held_tokens(database) == 30
        assert await finish(quotas, call, 25) == 25  # whichever hold is shown: the stored amount counts

    async def test_asking_again_with_the_same_hold_grants_once(self, database: Database, quotas: Quotas) -> None:
        alice = await open_account(database, "alice", tokens=100)
        call = await hold(quotas, alice, 10)
        first, second = await asyncio.gather(quotas.extend(call, 20), quotas.extend(call, 20))
        assert first == second == await quotas.extend(call, 20)
        assert first.amount == await held_tokens(database) == 30
        await finish(quotas, first, 0)

    async def test_extended_and_settled_in_one_transaction(
        self, database: Database, quotas: Quotas, writer: TroubledWriter
    ) -> None:
        alice = await open_account(database, "alice", tokens=100)
        call = await hold(quotas, alice, 10)
        runs = writer.runs
        extended, charged = await asyncio.gather(quotas.extend(call, 20), finish(quotas, call, 27))
        assert (extended.amount, charged, writer.runs - runs) == (30, 27, 1)

    async def test_a_caller_that_leaves_keeps_what_was_granted_until_the_end(
        self, database: Database, quotas: Quotas, writer: TroubledWriter
    ) -> None:
        alice = await open_account(database, "alice", tokens=100)
        call = await hold(quotas, alice, 10)
        writer.gate.clear()
        leaving = asyncio.create_task(quotas.extend(call, 20))
        await asyncio.sleep(0)
        leaving.cancel()
        writer.gate.set()
        assert (await asyncio.gather(leaving, return_exceptions=True))[0].__class__ is asyncio.CancelledError
        assert (await quotas.extend(call, 20)).amount == 30
        assert await finish(quotas, call, 30) == 30
        assert await held_tokens(database) == 0


class TestKeys:
    async def key(self, database: Database, account: Account, cap: SpendCap) -> int:
        new = await ApiKeys(database).create(account.account_id, KeyTerms("k"), {Meter.TOKENS: cap})
        return new.key.key_id

    @pytest.mark.parametrize(
        ("cap", "amount"), [(SpendCap(total=25), 25), (SpendCap(daily=18), 18), (SpendCap(total=30, daily=40), 30)]
    )
    async def test_a_key_s_limits_end_the_slices(
        self, database: Database, quotas: Quotas, cap: SpendCap, amount: int
    ) -> None:
        alice = await open_account(database, "alice", tokens=1000)
        key_id = await self.key(database, alice, cap)
        call = await hold(quotas, alice, 10, key_id=key_id)
        call = await quotas.extend(call, 500)
        assert call.amount == amount
        assert await quotas.extend(call, 500) == call
        assert await finish(quotas, call, 900) == amount

    async def test_on_a_later_day_the_whole_hold_counts_there(
        self, database: Database, quotas: Quotas, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        day = 20260101
        monkeypatch.setattr("aiproject.ledger.key_limits.day_of", lambda _now, _zone: day)
        alice = await open_account(database, "alice", tokens=1000)
        key_id = await self.key(database, alice, SpendCap(daily=50))
        late, call = await hold(quotas, alice, 20, key_id=key_id), await hold(quotas, alice, 30, key_id=key_id)
        assert await quotas.extend(call, 5) == call  # the day is full
        day = 20260102
        call = await quotas.extend(call, 5)
        assert call.amount == 35
        other = await hold(quotas, alice, 15, key_id=key_id)
        assert await quotas.extend(late, 1) == late  # 35 + 15 are held today: its 20 do not fit beside them
        assert await finish(quotas, call, 30) == 30
        assert (await quotas.extend(other, 50)).amount == 20
        assert await finish(quotas, late, 20) == 20  # counts on its own day still
        assert await finish(quotas, other, 20) == 20
