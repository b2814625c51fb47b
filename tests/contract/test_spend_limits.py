"""What API keys may spend, on each of the four databases: never more, whoever asks at the same moment.

After every test the whole books are proved: `verify` finds nothing.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from aiproject.accounts.api_keys.model import ApiKey, KeyTerms, SpendCap, SpendLimit
from aiproject.accounts.api_keys.service import ApiKeys
from aiproject.accounts.core.model import Account
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.errors import CommitInDoubt
from aiproject.adapters.db.schema import api_key, spend_limit
from aiproject.adapters.db.schema import hold as holds
from aiproject.adapters.db.schema import operator_loss as losses
from aiproject.errors import NotSignedIn, QuotaExhausted, SpendLimitReached
from aiproject.ledger.batcher import LedgerBatcher
from aiproject.ledger.model import Hold, Meter, Outcome, Stage
from aiproject.ledger.service import LeaseTimes, Quotas
from aiproject.ledger.verify import verify
from bookkeeping import open_account, reread
from troubled_writer import TroubledWriter

LEASES = LeaseTimes(30)
SHANGHAI = ZoneInfo("Asia/Shanghai")
TOKENS, PIC_TIMES, VOICE = Meter.TOKENS, Meter.PIC_TIMES, Meter.VOICE_SECONDS

on_one = pytest.mark.parametrize("database_kind", ["sqlite"])
"""For tests of what does not depend on the database."""

request_ids = (f"r{number}" for number in itertools.count())


@pytest.fixture
async def quotas(database: Database) -> AsyncIterator[Quotas]:
    """One process's engine; what a test did with it must leave books that add up."""
    async with Quotas.running(database, LEASES, zone=SHANGHAI) as engine:
        yield engine
    assert [str(difference) async for difference in verify(database)] == []


@pytest.fixture
async def rival(quotas: Quotas, database_url: str) -> AsyncIterator[Quotas]:
    """The engine of another process: with connections of its own."""
    elsewhere = await Database.open(database_url)
    try:
        async with Quotas.running(elsewhere, LEASES, zone=SHANGHAI) as engine:
            yield engine
    finally:
        await elsewhere.close()


@pytest.fixture
async def ann(database: Database) -> Account:
    return await open_account(database, "ann", tokens=100_000, pic_times=1000)


async def made(database: Database, account: Account, **caps: SpendCap) -> ApiKey:
    """A key with caps by capability."""
    wanted = {Meter(name): cap for name, cap in caps.items()}
    return (await ApiKeys(database).create(account.account_id, KeyTerms("a key"), wanted)).key


async def held(
    quotas: Quotas, account: Account, key: ApiKey, amount: int, *, need: int | None = None, of: Meter = TOKENS
) -> Hold:
    return await quotas.hold(
        account, of, amount, need=need, request_id=next(request_ids), key_id=key.key_id
    )  # fmt: skip


async def finish(quotas: Quotas, hold: Hold, units: int) -> int:
    return await quotas.settle(hold, Outcome.FINISHED, Stage.LAST_FRAME, reported=units)


async def limit(database: Database, key: ApiKey, of: Meter = TOKENS) -> SpendLimit:
    return (await ApiKeys(database).get(key.account_id, key.prefix)).limits[of]


async def let_a_day_pass(database: Database) -> None:
    """Whatever was held or counted until now was so yesterday."""
    yesterday = int(f"{datetime.now(SHANGHAI) - timedelta(days=1):%Y%m%d}")
    async with database.begin() as connection:
        await connection.execute(sa.update(spend_limit).where(spend_limit.c.day > 0).values(day=yesterday))
        await connection.execute(sa.update(holds).where(holds.c.key_day > 0).values(key_day=yesterday))


class TestATotal:
    async def test_is_spent_to_its_end_and_no_further(self, quotas: Quotas, database: Database, ann: Account) -> None:
        key = await made(database, ann, tokens=SpendCap(total=100))
        first = await held(quotas, ann, key, 60)
        with pytest.raises(SpendLimitReached) as caught:
            await held(quotas, ann, key, 41)
        assert (caught.value.capability, caught.value.retry_after) == ("tokens", None)
        assert await finish(quotas, first, 30) == 30
        second = await held(quotas, ann, key, 70)
        assert await finish(quotas, second, 70) == 70
        with pytest.raises(SpendLimitReached):
            await held(quotas, ann, key, 1)
        assert (await limit(database, key))[2:4] == (100, 0)
        assert (await reread(database, "ann")).tokens == 99_900

    @on_one
    async def test_cuts_a_hold_as_a_balance_does(self, quotas: Quotas, database: Database, ann: Account) -> None:
        key = await made(database, ann, tokens=SpendCap(total=100))
        hold = await held(quotas, ann, key, 4000, need=90)
        assert hold.amount == 100
        assert await finish(quotas, hold, 130) == 100

    async def test_leaves_other_capabilities_and_calls_without_it_alone(
        self, quotas: Quotas, database: Database, ann: Account
    ) -> None:
        key = await made(database, ann, tokens=SpendCap(total=0))
        await finish(quotas, await held(quotas, ann, key, 1, of=PIC_TIMES), 1)
        await finish(quotas, await held(quotas, ann, key, 2000, of=VOICE), 2000)
        await finish(quotas, await quotas.hold(ann, TOKENS, 50, request_id=next(request_ids)), 50)
        assert (await limit(database, key, PIC_TIMES)).spent == 1
        assert (await limit(database, key, VOICE)).spent == 2000
        assert (await limit(database, key)).spent == 0

    @on_one
    async def test_counts_for_an_unmetered_account_too(self, quotas: Quotas, database: Database, ann: Account) -> None:
        key = await made(database, ann, voice_seconds=SpendCap(total=5000))
        await finish(quotas, await held(quotas, ann, key, 5000, of=VOICE), 5000)
        with pytest.raises(SpendLimitReached):
            await held(quotas, ann, key, 1, of=VOICE)

    @on_one
    async def test_the_account_s_balance_comes_first(self, quotas: Quotas, database: Database) -> None:
        poor = await open_account(database, "poor", tokens=10)
        key = await made(database, poor, tokens=SpendCap(total=5))
        with pytest.raises(QuotaExhausted):
            await held(quotas, poor, key, 11)

    async def test_is_given_back_by_a_failed_call(self, quotas: Quotas, database: Database, ann: Account) -> None:
        key = await made(database, ann, tokens=SpendCap(total=100, daily=100))
        hold = await held(quotas, ann, key, 100)
        await quotas.settle(hold, Outcome.UPSTREAM_FAILED, Stage.SENT)
        assert (await limit(database, key))[2:] == (0, 0, (await limit(database, key)).day, 0, 0)

    async def test_can_be_raised_and_lowered(self, quotas: Quotas, database: Database, ann: Account) -> None:
        key = await made(database, ann, tokens=SpendCap(total=10))
        await finish(quotas, await held(quotas, ann, key, 10), 10)
        keys = ApiKeys(database)
        await keys.change(ann.account_id, key.prefix, caps={TOKENS: SpendCap(total=15)})
        hold = await held(quotas, ann, key, 5)
        await keys.change(ann.account_id, key.prefix, caps={TOKENS: SpendCap(total=3)})
        assert await finish(quotas, hold, 5) == 5, "what was held was promised"
        with pytest.raises(SpendLimitReached):
            await held(quotas, ann, key, 1)

    @pytest.mark.parametrize("cap", [SpendCap(total=100), SpendCap(daily=100)], ids=["total", "daily"])
    async def test_is_exact_on_two_nodes_at_once(
        self, quotas: Quotas, rival: Quotas, database: Database, ann: Account, cap: SpendCap
    ) -> None:
        key = await made(database, ann, tokens=cap)
        other = await made(database, ann, tokens=SpendCap(total=40, daily=40))

        async def call(number: int) -> int:
            node = (quotas, rival)[number % 2]
            try:
                hold = await held(node, ann, key if number % 3 else other, 4)
            except SpendLimitReached:
                return 0
            await asyncio.sleep(0.001 * (number % 5))
            if number % 7 == 0:
                await node.settle(hold, Outcome.UPSTREAM_FAILED, Stage.SENT)
                return 0
            return await finish(node, hold, 4 - number % 2)

        taken = sum(await asyncio.gather(*(call(number) for number in range(120))))
        found, others = await limit(database, key), await limit(database, other)
        assert (found.held, others.held) == (0, 0)
        assert 0 < found.spent <= 100
        assert 0 < others.spent <= 40
        assert found.spent + others.spent == taken == 100_000 - (await reread(database, "ann")).tokens
        if rest := 100 - found.spent:
            await finish(rival, await held(rival, ann, key, rest), rest)
        with pytest.raises(SpendLimitReached):
            await held(quotas, ann, key, 1)

    async def test_holds_exactly_as_many_calls_as_it_pays(
        self, quotas: Quotas, rival: Quotas, database: Database, ann: Account
    ) -> None:
        key = await made(database, ann, pic_times=SpendCap(total=17))
        asked = [held((quotas, rival)[number % 2], ann, key, 1, of=PIC_TIMES) for number in range(60)]
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(result, Hold) for result in results) == 17
        assert sum(isinstance(result, SpendLimitReached) for result in results) == 43
        await asyncio.gather(*(finish(quotas, result, 1) for result in results if isinstance(result, Hold)))


class TestADay:
    async def test_has_a_cap_of_its_own(self, quotas: Quotas, database: Database, ann: Account) -> None:
        key = await made(database, ann, tokens=SpendCap(total=1000, daily=100))
        await finish(quotas, await held(quotas, ann, key, 100), 80)
        with pytest.raises(SpendLimitReached) as caught:
            await held(quotas, ann, key, 21)
        assert caught.value.retry_after is not None
        assert 1 <= caught.value.retry_after <= 86_400
        await let_a_day_pass(database)
        await finish(quotas, await held(quotas, ann, key, 100), 100)
        found = await limit(database, key)
        assert (found.spent, found.day_spent, found.day) == (180, 100, int(f"{datetime.now(SHANGHAI):%Y%m%d}"))

    @on_one
    async def test_a_call_over_the_whole_cap_is_not_told_to_come_back(
        self, quotas: Quotas, database: Database, ann: Account
    ) -> None:
        key = await made(database, ann, tokens=SpendCap(daily=100))
        with pytest.raises(SpendLimitReached) as caught:
            await held(quotas, ann, key, 101)
        assert caught.value.retry_after is None

    async def test_a_hold_of_yesterday_is_settled_against_yesterday(
        self, quotas: Quotas, database: Database, ann: Account
    ) -> None:
        key = await made(database, ann, tokens=SpendCap(total=1000, daily=100))
        before, failing = await held(quotas, ann, key, 60), await held(quotas, ann, key, 40)
        await let_a_day_pass(database)
        today = await held(quotas, ann, key, 100)
        assert (await limit(database, key)).day_held == 100
        await finish(quotas, before, 50)
        await quotas.settle(failing, Outcome.UPSTREAM_FAILED, Stage.SENT)
        await finish(quotas, today, 90)
        found = await limit(database, key)
        assert (found.spent, found.held, found.day_spent, found.day_held) == (140, 0, 90, 0)

    @on_one
    async def test_a_hold_of_yesterday_is_counted_while_nobody_has_begun_today(
        self, quotas: Quotas, database: Database, ann: Account
    ) -> None:
        key = await made(database, ann, tokens=SpendCap(daily=100))
        before = await held(quotas, ann, key, 60)
        await let_a_day_pass(database)
        await finish(quotas, before, 50)
        assert (await limit(database, key)).day_spent == 50
        await held(quotas, ann, key, 100)
        assert (await limit(database, key))[5:] == (0, 100)

    @on_one
    async def test_a_clock_that_is_put_back_opens_no_day_anew(
        self, quotas: Quotas, database: Database, ann: Account
    ) -> None:
        key = await made(database, ann, tokens=SpendCap(daily=100))
        await finish(quotas, await held(quotas, ann, key, 100), 100)
        tomorrow = int(f"{datetime.now(SHANGHAI) + timedelta(days=1):%Y%m%d}")
        async with database.begin() as connection:
            await connection.execute(sa.update(spend_limit).where(spend_limit.c.day > 0).values(day=tomorrow))
            await connection.execute(sa.update(holds).where(holds.c.key_day > 0).values(key_day=tomorrow))
        with pytest.raises(SpendLimitReached):
            await held(quotas, ann, key, 1)


class TestTrouble:
    async def expire(self, database: Database) -> None:
        async with database.begin() as connection:
            await connection.execute(sa.update(holds).values(lease_until=1))

    async def lost(self, database: Database) -> int:
        async with database.connect() as connection:
            return int((await connection.execute(sa.select(sa.func.sum(losses.c.amount)))).scalar_one() or 0)

    async def test_the_sweeper_gives_back_what_the_dead_held(
        self, quotas: Quotas, database: Database, ann: Account
    ) -> None:
        key = await made(database, ann, tokens=SpendCap(total=100, daily=100))
        await held(quotas, ann, key, 100)
        await self.expire(database)
        assert await quotas.sweep() == 1
        assert (await limit(database, key))[2:4] == (0, 0)
        await held(quotas, ann, key, 100)

    async def test_a_late_settlement_takes_no_more_than_is_left(
        self, quotas: Quotas, database: Database, ann: Account
    ) -> None:
        key = await made(database, ann, tokens=SpendCap(total=100))
        slow = await held(quotas, ann, key, 80)
        await self.expire(database)
        await quotas.sweep()
        await finish(quotas, await held(quotas, ann, key, 70), 70)
        assert await finish(quotas, slow, 80) == 30
        assert (await limit(database, key)).spent == 100
        assert await self.lost(database) == 50

    async def test_a_late_settlement_of_a_day_that_is_over_cannot_overspend_it(
        self, quotas: Quotas, database: Database, ann: Account
    ) -> None:
        key = await made(database, ann, tokens=SpendCap(daily=100))
        slow = await held(quotas, ann, key, 80)
        await self.expire(database)
        await quotas.sweep()
        await finish(quotas, await held(quotas, ann, key, 70), 70)
        await let_a_day_pass(database)
        today = await held(quotas, ann, key, 10)
        assert await finish(quotas, slow, 80) == 0
        await finish(quotas, today, 10)
        assert (await limit(database, key))[2:] == (80, 0, int(f"{datetime.now(SHANGHAI):%Y%m%d}"), 10, 0)

    @pytest.mark.parametrize("when", ["after", "instead"])
    async def test_a_commit_in_doubt_counts_once(
        self, quotas: Quotas, database: Database, ann: Account, when: str
    ) -> None:
        writer = TroubledWriter(database)
        troubled = Quotas(database, LEASES, LedgerBatcher(database, writer), zone=SHANGHAI)
        key = await made(database, ann, tokens=SpendCap(total=100, daily=100))
        writer.trouble(CommitInDoubt("connection lost while committing"), when=when)
        hold = await held(troubled, ann, key, 60)
        assert (await limit(database, key)).held == 60
        writer.trouble(CommitInDoubt("connection lost while committing"), when=when)
        await finish(troubled, hold, 45)
        assert (await limit(database, key))[2:4] == (45, 0)

    async def test_a_key_that_is_gone_holds_nothing(self, quotas: Quotas, database: Database, ann: Account) -> None:
        key = await made(database, ann)
        async with database.begin() as connection:
            await connection.execute(sa.delete(spend_limit))
            await connection.execute(sa.delete(api_key))
        with pytest.raises(NotSignedIn):
            await held(quotas, ann, key, 10)
        assert (await reread(database, "ann")).tokens == 100_000

    async def test_verify_finds_what_somebody_spoilt(self, quotas: Quotas, database: Database, ann: Account) -> None:
        key = await made(database, ann, tokens=SpendCap(total=100, daily=100))
        await finish(quotas, await held(quotas, ann, key, 30), 30)
        running = await held(quotas, ann, key, 20)

        async def found(**spoilt: int) -> list[str]:
            was = (await limit(database, key))._asdict()
            async with database.begin() as connection:
                await connection.execute(
                    sa.update(spend_limit).where(spend_limit.c.capability == TOKENS).values(spoilt)
                )
            differences = [str(difference) async for difference in verify(database)]
            async with database.begin() as connection:
                await connection.execute(sa.update(spend_limit).where(spend_limit.c.capability == TOKENS).values(was))
            return differences

        whose = f"account {ann.account_id}: "
        name = f"of API key {key.key_id}, tokens"
        assert await found(spent=29) == [f"{whose}spent {name}: expected 30, found 29"]
        assert await found(held=0) == [f"{whose}held {name}: expected 20, found 0"]
        assert await found(day_spent=0) == [f"{whose}day_spent {name}: expected 30, found 0"]
        assert await found(day_held=21) == [f"{whose}day_held {name}: expected 20, found 21"]
        async with database.begin() as connection:
            await connection.execute(sa.update(spend_limit).values(key_id=spend_limit.c.key_id + 1))
        differences = [str(difference) async for difference in verify(database)]
        of_hold, of_key = differences
        assert "API key of the open hold" in of_hold
        assert "fingerprint of terms and caps" in of_key
        async with database.begin() as connection:
            await connection.execute(sa.update(spend_limit).values(key_id=spend_limit.c.key_id - 1))
        await finish(quotas, running, 20)
