"""Balances on each of the four databases: exact, never below zero, also when many take at the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from aiproject.accounts import Account, store
from aiproject.adapters.database import Database
from aiproject.adapters.schema import new_account_id
from aiproject.adapters.schema import user as users
from aiproject.errors import QuotaExhausted
from aiproject.quotas import Capability, Hold, Quotas

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
async def rival(database: Database, database_url: str) -> AsyncIterator[Quotas]:
    """Quotas of another process: with connections of its own."""
    elsewhere = await Database.open(database_url)
    yield Quotas(elsewhere)
    await elsewhere.close()


async def opened(
    database: Database, name: str = "alice", *, tokens: int = 0, pic_times: int = 0, voice_ms: int | None = None
) -> Account:
    async with database.begin() as connection:
        await store.add(
            connection,
            account_id=new_account_id(NOW),
            uuid=f"id-of-{name}",
            name_key=name,
            username=name,
            password="x",
            email="",
            academy=None,
            tokens=tokens,
            pic_times=pic_times,
            voice_ms=voice_ms,
            now=NOW,
        )
    return await now(database, name)


async def now(database: Database, name: str = "alice") -> Account:
    async with database.connect() as connection:
        return (await store.by_name_keys(connection, [name]))[0][0]


async def hold(quotas: Quotas, account: Account, capability: Capability, amount: int) -> Hold:
    return await quotas.hold(account, capability, amount, request_id="r1")


class TestTaking:
    async def test_exactly_what_was_used(self, database: Database) -> None:
        quotas = Quotas(database)
        account = await opened(database, tokens=1000, pic_times=3, voice_ms=5000)
        bystander = await opened(database, "bob", tokens=1000, pic_times=3, voice_ms=5000)
        assert await quotas.capture(await hold(quotas, account, Capability.TOKENS, 800), 14) == 14
        assert await quotas.capture(await hold(quotas, account, Capability.PIC_TIMES, 1), 1) == 1
        assert await quotas.capture(await hold(quotas, account, Capability.VOICE_SECONDS, 1234), 1234) == 1234
        after = await now(database)
        assert (after.tokens, after.pic_times, after.voice_ms, after.voice_used_ms) == (986, 2, 3766, 1234)
        assert await now(database, "bob") == bystander

    async def test_a_released_hold_takes_nothing(self, database: Database) -> None:
        quotas = Quotas(database)
        account = await opened(database, tokens=1000, pic_times=1, voice_ms=1000)
        for capability in Capability:
            await quotas.release(await hold(quotas, account, capability, 1))
        assert await now(database) == account

    async def test_more_tokens_than_there_are(self, database: Database) -> None:
        """The answer is out: what is left is taken, and said."""
        quotas = Quotas(database)
        held = await hold(quotas, await opened(database, tokens=10), Capability.TOKENS, 500)
        assert await quotas.capture(held, 14) == 10
        assert (await now(database)).tokens == 0
        assert await quotas.capture(held, 14) == 0
        assert (await now(database)).tokens == 0

    async def test_the_last_one_is_enough(self, database: Database) -> None:
        quotas = Quotas(database)
        account = await opened(database, tokens=14, pic_times=1, voice_ms=1500)
        assert await quotas.capture(await hold(quotas, account, Capability.TOKENS, 14), 14) == 14
        await quotas.capture(await hold(quotas, account, Capability.PIC_TIMES, 1), 1)
        await quotas.capture(await hold(quotas, account, Capability.VOICE_SECONDS, 1500), 1500)
        after = await now(database)
        assert (after.tokens, after.pic_times, after.voice_ms) == (0, 0, 0)
        for capability in Capability:
            with pytest.raises(QuotaExhausted):
                await hold(quotas, after, capability, 1)

    async def test_unmetered_dictation_is_recorded(self, database: Database) -> None:
        quotas = Quotas(database)
        account = await opened(database, voice_ms=None)
        for _ in range(2):
            assert await quotas.capture(await hold(quotas, account, Capability.VOICE_SECONDS, 60_000), 60_000) == 0
        after = await now(database)
        assert (after.voice_ms, after.voice_used_ms) == (None, 120_000)

    async def test_an_account_that_is_gone(self, database: Database) -> None:
        quotas = Quotas(database)
        account = await opened(database, tokens=100, voice_ms=1000)
        async with database.begin() as connection:
            await connection.execute(sa.delete(users))
        for capability in (Capability.TOKENS, Capability.VOICE_SECONDS):
            assert await quotas.capture(Hold(account.account_id, capability, 10, "r1"), 10) == 0


class TestAtTheSameMoment:
    async def test_tokens_are_never_negative_and_none_is_lost(self, database: Database, rival: Quotas) -> None:
        quotas = Quotas(database)
        account = await opened(database, tokens=100)
        holds = [await hold(quotas, account, Capability.TOKENS, 100) for _ in range(16)]
        taken = await asyncio.gather(*((quotas, rival)[n % 2].capture(each, 14) for n, each in enumerate(holds)))
        assert sum(taken) == 100
        assert sorted(taken) == [0] * 8 + [2] + [14] * 7
        assert (await now(database)).tokens == 0

    async def test_pictures_exactly_so_many_succeed(self, database: Database, rival: Quotas) -> None:
        quotas = Quotas(database)
        account = await opened(database, pic_times=5)
        holds = [await hold(quotas, account, Capability.PIC_TIMES, 1) for _ in range(12)]
        outcomes = await asyncio.gather(
            *((quotas, rival)[n % 2].capture(each, 1) for n, each in enumerate(holds)), return_exceptions=True
        )
        assert outcomes.count(1) == 5
        assert sum(isinstance(outcome, QuotaExhausted) for outcome in outcomes) == 7
        assert (await now(database)).pic_times == 0

    async def test_clips_that_do_not_fit_are_not_recorded(self, database: Database, rival: Quotas) -> None:
        quotas = Quotas(database)
        account = await opened(database, voice_ms=10_000)
        holds = [await hold(quotas, account, Capability.VOICE_SECONDS, 3000) for _ in range(8)]
        outcomes = await asyncio.gather(
            *((quotas, rival)[n % 2].capture(each, 3000) for n, each in enumerate(holds)), return_exceptions=True
        )
        assert outcomes.count(3000) == 3
        assert sum(isinstance(outcome, QuotaExhausted) for outcome in outcomes) == 5
        after = await now(database)
        assert (after.voice_ms, after.voice_used_ms) == (1000, 9000)

    async def test_grants_and_captures_add_up(self, database: Database, rival: Quotas) -> None:
        quotas = Quotas(database)
        account = await opened(database, tokens=10_000)
        held = await hold(quotas, account, Capability.TOKENS, 10_000)
        await asyncio.gather(
            *(quotas.capture(held, 14) for _ in range(6)),
            *(rival.capture(held, 3) for _ in range(6)),
            *(quotas.grant(account, tokens=100) for _ in range(3)),
            *(rival.grant(account, tokens=-10) for _ in range(3)),
        )
        assert (await now(database)).tokens == 10_000 - 6 * 14 - 6 * 3 + 300 - 30


class TestGranting:
    async def test_adding_and_taking_away(self, database: Database) -> None:
        quotas = Quotas(database)
        account = await opened(database, tokens=100, pic_times=5, voice_ms=1500)
        await quotas.grant(account, tokens=50, pic_times=-2, voice_seconds=3)
        after = await now(database)
        assert (after.tokens, after.pic_times, after.voice_ms) == (150, 3, 4500)
        assert after.voice_used_ms == 0

    async def test_never_below_zero(self, database: Database) -> None:
        quotas = Quotas(database)
        account = await opened(database, tokens=100, pic_times=5, voice_ms=1500)
        await quotas.grant(account, tokens=-101, pic_times=-(10**15), voice_seconds=-2)
        after = await now(database)
        assert (after.tokens, after.pic_times, after.voice_ms) == (0, 0, 0)

    async def test_seconds_make_an_unmetered_account_metered(self, database: Database) -> None:
        quotas = Quotas(database)
        account = await opened(database, voice_ms=None)
        await quotas.grant(account, tokens=1)
        assert (await now(database)).voice_ms is None
        await quotas.grant(account, voice_seconds=60)
        assert (await now(database)).voice_ms == 60_000
        other = await opened(database, "bob", voice_ms=None)
        await quotas.grant(other, voice_seconds=-60)
        assert (await now(database, "bob")).voice_ms == 0

    async def test_more_than_32_bits(self, database: Database) -> None:
        quotas = Quotas(database)
        account = await opened(database)
        await quotas.grant(account, tokens=10**15, pic_times=10**15, voice_seconds=10**12)
        after = await now(database)
        assert (after.tokens, after.pic_times, after.voice_ms) == (10**15, 10**15, 10**15)
        held = await hold(quotas, after, Capability.TOKENS, 5 * 10**9)
        assert await quotas.capture(held, 5 * 10**9) == 5 * 10**9
        assert (await now(database)).tokens == 10**15 - 5 * 10**9
