"""Balances on each of the four databases: exact, never below zero, also when many hold and settle at the same moment.

After every test the whole books are proved: `verify` finds nothing.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from aiproject.accounts.core.model import Account
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.schema import hold as holds
from aiproject.adapters.db.schema import operator_loss as losses
from aiproject.adapters.db.schema import user as users
from aiproject.errors import AccountUnknown, QuotaExhausted
from aiproject.ledger.model import Hold, Meter, Outcome, Stage
from aiproject.ledger.service import LeaseTimes, Quotas
from aiproject.ledger.verify import verify
from bookkeeping import open_account, reread

LEASES = LeaseTimes(30)
TOKENS, PIC_TIMES, VOICE = Meter.TOKENS, Meter.PIC_TIMES, Meter.VOICE_SECONDS

request_ids = (f"r{number}" for number in itertools.count())


@pytest.fixture
async def quotas(database: Database) -> AsyncIterator[Quotas]:
    """One process's engine; what a test did with it must leave books that add up."""
    async with Quotas.running(database, LEASES) as engine:
        yield engine
    assert [str(difference) async for difference in verify(database)] == []


@pytest.fixture
async def rival(quotas: Quotas, database_url: str) -> AsyncIterator[Quotas]:
    """The engine of another process: with connections of its own."""
    elsewhere = await Database.open(database_url)
    try:
        async with Quotas.running(elsewhere, LEASES) as engine:
            yield engine
    finally:
        await elsewhere.close()


async def opened(
    database: Database, name: str = "alice", *, tokens: int = 0, pic_times: int = 0, voice_ms: int | None = None
) -> Account:
    return await open_account(database, name, tokens=tokens, pic_times=pic_times, voice_ms=voice_ms)


async def now(database: Database, name: str = "alice") -> Account:
    return await reread(database, name)


async def held(database: Database) -> tuple[int, int, int]:
    """What is held of the only account."""
    async with database.connect() as connection:
        columns = (users.c.HeldTokens, users.c.HeldPicTimes, users.c.HeldVoiceMs)
        tokens, pic_times, voice_ms = (await connection.execute(sa.select(*columns))).one()
        return (tokens, pic_times, voice_ms)


async def lost(database: Database) -> dict[str, int]:
    """What the operator lost, by capability."""
    async with database.connect() as connection:
        rows = await connection.execute(
            sa.select(losses.c.capability, sa.func.sum(losses.c.amount)).group_by(losses.c.capability)
        )
        return {capability: int(amount) for capability, amount in rows}


async def hold(quotas: Quotas, account: Account, capability: Meter, amount: int, *, need: int | None = None) -> Hold:
    return await quotas.hold(account, capability, amount, need=need, request_id=next(request_ids))


async def capture(quotas: Quotas, hold: Hold, used: int | None, *, estimated: int = 0) -> int:
    """Settle a call that was answered whole."""
    return await quotas.settle(hold, Outcome.FINISHED, Stage.LAST_FRAME, reported=used, estimated=estimated)


async def release(quotas: Quotas, hold: Hold) -> int:
    """Settle a call that upstream failed after some of its answer."""
    return await quotas.settle(hold, Outcome.UPSTREAM_FAILED, Stage.FIRST_FRAME, estimated=1)


class TestHolding:
    @pytest.mark.parametrize(
        ("balance", "asked", "need", "amount"),
        [(100, 40, 40, 40), (100, 100, 100, 100), (100, 500, 1, 100), (1, 500, 1, 1), (100, 500, 100, 100)],
    )
    async def test_tokens_are_held_as_far_as_they_go(
        self, database: Database, quotas: Quotas, balance: int, asked: int, need: int, amount: int
    ) -> None:
        account = await opened(database, tokens=balance)
        found = await quotas.hold(account, TOKENS, asked, need=need, request_id="r")
        assert found == Hold(account.account_id, TOKENS, amount, "r")
        assert await held(database) == (amount, 0, 0)
        assert (await now(database)).tokens == balance, "what is held is not gone"

    async def test_nothing_left(self, database: Database, quotas: Quotas) -> None:
        account = await opened(database, voice_ms=0)
        for capability in Meter:
            for need in (None, 0, 1):
                with pytest.raises(QuotaExhausted) as caught:
                    await hold(quotas, account, capability, 1, need=need)
                assert caught.value.capability == capability
                assert caught.value.capability in tuple(Meter)
        assert await held(database) == (0, 0, 0)

    async def test_less_than_a_call_needs_is_of_no_use_to_it(self, database: Database, quotas: Quotas) -> None:
        account = await opened(database, tokens=100)
        with pytest.raises(QuotaExhausted):
            await hold(quotas, account, TOKENS, 500, need=101)
        with pytest.raises(QuotaExhausted):
            await hold(quotas, account, TOKENS, 101)
        assert await held(database) == (0, 0, 0)

    async def test_one_balance_does_not_pay_for_another(self, database: Database, quotas: Quotas) -> None:
        with pytest.raises(QuotaExhausted):
            await hold(quotas, await opened(database, tokens=1000, voice_ms=1000), PIC_TIMES, 1)
        with pytest.raises(QuotaExhausted):
            await hold(quotas, await opened(database, "bob", tokens=1000, pic_times=10, voice_ms=0), VOICE, 1)

    async def test_what_cannot_be_divided_is_held_whole(self, database: Database, quotas: Quotas) -> None:
        account = await opened(database, pic_times=1, voice_ms=1500)
        assert (await hold(quotas, account, PIC_TIMES, 1)).amount == 1
        with pytest.raises(QuotaExhausted):
            await hold(quotas, account, VOICE, 1501)
        assert (await hold(quotas, account, VOICE, 1500)).amount == 1500

    async def test_unmetered_dictation_is_never_refused(self, database: Database, quotas: Quotas) -> None:
        account = await opened(database, voice_ms=None)
        for _ in range(2):
            assert (await hold(quotas, account, VOICE, 60_000)).amount == 60_000

    async def test_what_one_call_holds_no_other_can(self, database: Database, quotas: Quotas, rival: Quotas) -> None:
        account = await opened(database, tokens=100)
        first = await hold(quotas, account, TOKENS, 60)
        with pytest.raises(QuotaExhausted):
            await hold(rival, account, TOKENS, 41)
        second = await hold(rival, account, TOKENS, 60, need=1)
        assert second.amount == 40
        with pytest.raises(QuotaExhausted):
            await hold(quotas, account, TOKENS, 1)
        assert await capture(quotas, first, 10) == 10
        assert (await hold(quotas, account, TOKENS, 500, need=1)).amount == 50, "what a call did not use is free again"

    async def test_an_account_that_is_gone(self, database: Database) -> None:
        quotas = Quotas(database, LEASES)
        account = await opened(database, tokens=100)
        async with database.begin() as connection:
            await connection.execute(sa.delete(users))
        with pytest.raises(AccountUnknown):
            await hold(quotas, account, TOKENS, 1)


class TestWhoMayHold:
    """A credential that was looked up a moment ago is confirmed in the transaction that holds."""

    @pytest.mark.parametrize(
        "change",
        [{"Id": "another uuid"}, {"NameKey": "bob"}, {"DisabledAt": datetime(2026, 1, 1, tzinfo=UTC)}],
        ids=["another uuid", "another name", "disabled"],
    )
    async def test_a_pair_that_is_no_longer_right_holds_nothing(
        self, quotas: Quotas, database: Database, change: dict[str, object]
    ) -> None:
        alice = await opened(database, tokens=100)
        pair = (alice.uuid, "alice")
        first = await quotas.hold(alice, TOKENS, 10, request_id=next(request_ids), pair=pair)
        async with database.begin() as connection:
            await connection.execute(sa.update(users).values(**change))
        with pytest.raises(AccountUnknown):
            await quotas.hold(alice, TOKENS, 10, request_id=next(request_ids), pair=pair)
        assert await held(database) == (10, 0, 0)
        # What runs already is settled all the same.
        assert await quotas.settle(first, Outcome.FINISHED, Stage.LAST_FRAME, reported=7) == 7
        await put_back(database, alice)

    async def test_without_a_pair_nobody_is_asked(self, quotas: Quotas, database: Database) -> None:
        alice = await opened(database, tokens=100)
        async with database.begin() as connection:
            await connection.execute(sa.update(users).values(Id="another uuid"))
        hold_ = await quotas.hold(alice, TOKENS, 10, request_id=next(request_ids))
        await quotas.settle(hold_, Outcome.FINISHED, Stage.LAST_FRAME, reported=1)
        await put_back(database, alice)


async def put_back(database: Database, account: Account) -> None:
    """Undo an edit of the uuid by hand, which is a difference."""
    async with database.begin() as connection:
        await connection.execute(sa.update(users).values(Id=account.uuid))


class TestSettling:
    async def test_exactly_what_was_used(self, database: Database, quotas: Quotas) -> None:
        account = await opened(database, tokens=1000, pic_times=3, voice_ms=5000)
        bystander = await opened(database, "bob", tokens=1000, pic_times=3, voice_ms=5000)
        assert await capture(quotas, await hold(quotas, account, TOKENS, 800), 14) == 14
        assert await capture(quotas, await hold(quotas, account, PIC_TIMES, 1), 1) == 1
        assert await capture(quotas, await hold(quotas, account, VOICE, 1234), 1234) == 1234
        after = await now(database)
        assert (after.tokens, after.pic_times, after.voice_ms, after.voice_used_ms) == (986, 2, 3766, 1234)
        assert await now(database, "bob") == bystander
        async with database.connect() as connection:
            sums = sa.select(*(sa.func.sum(users.c[name]) for name in ("HeldTokens", "HeldPicTimes", "HeldVoiceMs")))
            assert (await connection.execute(sums)).one() == (0, 0, 0)

    @pytest.mark.parametrize(
        "outcome",
        [
            Outcome.UPSTREAM_FAILED,
            Outcome.MODERATED,
            Outcome.TRUNCATED,
            Outcome.TIMED_OUT,
            Outcome.SERVER_STOPPED,
            Outcome.SERVER_FAILED,
            Outcome.SERVER_KILLED,
        ],
    )
    async def test_a_failed_call_takes_nothing_however_far_it_got(
        self, database: Database, quotas: Quotas, outcome: Outcome
    ) -> None:
        account = await opened(database, tokens=1000, pic_times=1, voice_ms=1000)
        for capability, stage in itertools.product(Meter, Stage):
            failed = await hold(quotas, account, capability, 1)
            assert await quotas.settle(failed, outcome, stage, reported=1, estimated=1) == 0
        assert await now(database) == account
        assert await held(database) == (0, 0, 0)

    async def test_who_hangs_up_pays_what_was_generated(self, database: Database, quotas: Quotas) -> None:
        account = await opened(database, tokens=1000)
        taken = [
            await quotas.settle(
                await hold(quotas, account, TOKENS, 100), Outcome.CLIENT_GONE, stage, reported=reported, estimated=20
            )
            for stage, reported in (
                (Stage.HELD, None),
                (Stage.SENT, None),
                (Stage.FIRST_FRAME, None),
                (Stage.LAST_FRAME, 14),
            )
        ]
        assert taken == [0, 20, 20, 14]
        assert (await now(database)).tokens == 1000 - 54

    async def test_the_estimate_counts_where_upstream_does_not_tell(self, database: Database, quotas: Quotas) -> None:
        account = await opened(database, tokens=1000)
        assert await capture(quotas, await hold(quotas, account, TOKENS, 100), None, estimated=23) == 23
        assert await capture(quotas, await hold(quotas, account, TOKENS, 100), 0, estimated=23) == 0
        assert (await now(database)).tokens == 977

    async def test_more_tokens_than_were_held_are_the_operators_loss(self, database: Database, quotas: Quotas) -> None:
        """The answer is out: what was held is taken, and the rest is written down."""
        account = await opened(database, tokens=10)
        taken = await hold(quotas, account, TOKENS, 500, need=1)
        assert await capture(quotas, taken, 14) == 10
        assert (await now(database)).tokens == 0
        assert await lost(database) == {"tokens": 4}
        assert await capture(quotas, taken, 14) == 10, "said again, not taken again"
        assert (await now(database)).tokens == 0
        assert await lost(database) == {"tokens": 4}

    async def test_not_more_than_was_held_also_of_a_large_balance(self, database: Database, quotas: Quotas) -> None:
        account = await opened(database, tokens=1000)
        assert await capture(quotas, await hold(quotas, account, TOKENS, 10), 10**7) == 10
        assert (await now(database)).tokens == 990
        assert await lost(database) == {"tokens": 10**7 - 10}

    async def test_the_last_one_is_enough(self, database: Database, quotas: Quotas) -> None:
        account = await opened(database, tokens=14, pic_times=1, voice_ms=1500)
        assert await capture(quotas, await hold(quotas, account, TOKENS, 14), 14) == 14
        await capture(quotas, await hold(quotas, account, PIC_TIMES, 1), 1)
        await capture(quotas, await hold(quotas, account, VOICE, 1500), 1500)
        after = await now(database)
        assert (after.tokens, after.pic_times, after.voice_ms) == (0, 0, 0)
        for capability in Meter:
            with pytest.raises(QuotaExhausted):
                await hold(quotas, after, capability, 1)

    async def test_unmetered_dictation_is_recorded(self, database: Database, quotas: Quotas) -> None:
        account = await opened(database, voice_ms=None)
        for _ in range(2):
            assert await capture(quotas, await hold(quotas, account, VOICE, 60_000), 60_000) == 60_000
        after = await now(database)
        assert (after.voice_ms, after.voice_used_ms) == (None, 120_000)

    async def test_only_the_first_settlement_counts(self, database: Database, quotas: Quotas, rival: Quotas) -> None:
        account = await opened(database, tokens=100, pic_times=1)
        answered = await hold(quotas, account, TOKENS, 50)
        failed = await hold(quotas, account, PIC_TIMES, 1)
        assert await capture(quotas, answered, 14) == 14
        assert await release(quotas, failed) == 0
        for engine in (quotas, rival):
            assert await capture(engine, answered, 30) == 14
            assert await release(engine, answered) == 14
            assert await capture(engine, failed, 1) == 0
        after = await now(database)
        assert (after.tokens, after.pic_times) == (86, 1)
        assert await held(database) == (0, 0, 0)

    async def test_a_call_that_nobody_pays_takes_nothing(self, database: Database, quotas: Quotas) -> None:
        free = Hold(None, VOICE, 1000, "of a guest")
        assert await capture(quotas, free, 1000) == 0
        async with database.connect() as connection:
            assert (await connection.execute(sa.select(holds))).all() == []

    async def test_a_hold_that_never_was_takes_nothing(self, database: Database, quotas: Quotas) -> None:
        account = await opened(database, tokens=100)
        assert await capture(quotas, Hold(account.account_id, TOKENS, 50, "of nobody"), 14) == 0
        assert await now(database) == account

    async def test_an_account_that_is_gone(self, database: Database) -> None:
        quotas = Quotas(database, LEASES)
        account = await opened(database, tokens=100, voice_ms=1000)
        running = [await hold(quotas, account, capability, 10) for capability in (TOKENS, VOICE)]
        async with database.begin() as connection:
            await connection.execute(sa.delete(users))
        assert [await capture(quotas, each, 10) for each in running] == [0, 0]


class TestAtTheSameMoment:
    async def test_tokens_are_never_negative_and_none_is_lost(
        self, database: Database, quotas: Quotas, rival: Quotas
    ) -> None:
        account = await opened(database, tokens=100)
        engines = (quotas, rival)
        outcomes = await asyncio.gather(
            *(hold(engines[n % 2], account, TOKENS, 30, need=1) for n in range(16)), return_exceptions=True
        )
        running = [outcome for outcome in outcomes if isinstance(outcome, Hold)]
        assert sorted(each.amount for each in running) == [10, 30, 30, 30]
        assert sum(isinstance(outcome, QuotaExhausted) for outcome in outcomes) == 12
        taken = await asyncio.gather(*(capture(engines[n % 2], each, 14) for n, each in enumerate(running)))
        assert sorted(taken) == [10, 14, 14, 14]
        assert (await now(database)).tokens == 100 - 52
        assert await held(database) == (0, 0, 0)
        assert await lost(database) == {"tokens": 4}

    async def test_pictures_exactly_so_many_succeed(self, database: Database, quotas: Quotas, rival: Quotas) -> None:
        account = await opened(database, pic_times=5)

        async def read(engine: Quotas) -> int:
            return await capture(engine, await hold(engine, account, PIC_TIMES, 1), 1)

        outcomes = await asyncio.gather(*(read((quotas, rival)[n % 2]) for n in range(12)), return_exceptions=True)
        assert outcomes.count(1) == 5
        assert sum(isinstance(outcome, QuotaExhausted) for outcome in outcomes) == 7
        assert (await now(database)).pic_times == 0

    async def test_clips_that_do_not_fit_are_not_recorded(
        self, database: Database, quotas: Quotas, rival: Quotas
    ) -> None:
        account = await opened(database, voice_ms=10_000)

        async def transcribe(engine: Quotas) -> int:
            return await capture(engine, await hold(engine, account, VOICE, 3000), 3000)

        outcomes = await asyncio.gather(*(transcribe((quotas, rival)[n % 2]) for n in range(8)), return_exceptions=True)
        assert outcomes.count(3000) == 3
        assert sum(isinstance(outcome, QuotaExhausted) for outcome in outcomes) == 5
        after = await now(database)
        assert (after.voice_ms, after.voice_used_ms) == (1000, 9000)

    async def test_one_call_settled_by_two_is_charged_once(
        self, database: Database, quotas: Quotas, rival: Quotas
    ) -> None:
        account = await opened(database, tokens=1000)
        for _ in range(5):
            each = await hold(quotas, account, TOKENS, 100)
            taken = await asyncio.gather(*(capture(engine, each, 14) for engine in (quotas, rival, quotas, rival)))
            assert taken == [14] * 4
        assert (await now(database)).tokens == 1000 - 5 * 14

    async def test_grants_and_calls_add_up(self, database: Database, quotas: Quotas, rival: Quotas) -> None:
        account = await opened(database, tokens=10_000)

        async def call(engine: Quotas, used: int) -> None:
            running = await hold(engine, account, TOKENS, 500)
            await release(engine, await hold(engine, account, TOKENS, 300))
            assert await capture(engine, running, used) == used

        await asyncio.gather(
            *(call(quotas, 14) for _ in range(6)),
            *(call(rival, 3) for _ in range(6)),
            *(quotas.grant(account, tokens=100) for _ in range(3)),
            *(rival.grant(account, tokens=-10) for _ in range(3)),
        )
        assert (await now(database)).tokens == 10_000 - 6 * 14 - 6 * 3 + 300 - 30
        assert await held(database) == (0, 0, 0)

    async def test_many_accounts_in_one_batch_stay_apart(
        self, database: Database, quotas: Quotas, rival: Quotas
    ) -> None:
        accounts = [await opened(database, f"person {n}", tokens=100) for n in range(6)]

        async def call(engine: Quotas, account: Account, used: int) -> int:
            return await capture(engine, await hold(engine, account, TOKENS, 40), used)

        # In opposite orders, so that the two would lock each other out if they locked as they came.
        await asyncio.gather(
            *(call(quotas, account, n) for n, account in enumerate(accounts)),
            *(call(rival, account, 2 * n) for n, account in reversed(list(enumerate(accounts)))),
        )
        left = [(await now(database, f"person {n}")).tokens for n in range(6)]
        assert left == [100 - 3 * n for n in range(6)]


class TestGranting:
    async def test_adding_and_taking_away(self, database: Database, quotas: Quotas) -> None:
        account = await opened(database, tokens=100, pic_times=5, voice_ms=1500)
        await quotas.grant(account, tokens=50, pic_times=-2, voice_seconds=3)
        after = await now(database)
        assert (after.tokens, after.pic_times, after.voice_ms) == (150, 3, 4500)
        assert after.voice_used_ms == 0

    async def test_never_below_zero(self, database: Database, quotas: Quotas) -> None:
        account = await opened(database, tokens=100, pic_times=5, voice_ms=1500)
        await quotas.grant(account, tokens=-101, pic_times=-(10**15), voice_seconds=-2)
        after = await now(database)
        assert (after.tokens, after.pic_times, after.voice_ms) == (0, 0, 0)

    async def test_what_is_held_is_not_taken_away(self, database: Database, quotas: Quotas, rival: Quotas) -> None:
        account = await opened(database, tokens=100)
        running = await hold(quotas, account, TOKENS, 60)
        await rival.grant(account, tokens=-(10**15))
        assert (await now(database)).tokens == 60
        assert await capture(quotas, running, 50) == 50
        assert (await now(database)).tokens == 10

    async def test_seconds_make_an_unmetered_account_metered(self, database: Database, quotas: Quotas) -> None:
        account = await opened(database, voice_ms=None)
        await quotas.grant(account, tokens=1)
        assert (await now(database)).voice_ms is None
        await quotas.grant(account, voice_seconds=60)
        assert (await now(database)).voice_ms == 60_000
        other = await opened(database, "bob", voice_ms=None)
        await quotas.grant(other, voice_seconds=-60)
        assert (await now(database, "bob")).voice_ms == 0

    async def test_more_than_32_bits(self, database: Database, quotas: Quotas) -> None:
        account = await opened(database)
        await quotas.grant(account, tokens=10**15, pic_times=10**15, voice_seconds=10**12)
        after = await now(database)
        assert (after.tokens, after.pic_times, after.voice_ms) == (10**15, 10**15, 10**15)
        running = await hold(quotas, after, TOKENS, 5 * 10**9)
        assert await capture(quotas, running, 5 * 10**9) == 5 * 10**9
        assert (await now(database)).tokens == 10**15 - 5 * 10**9

    async def test_nobody(self, database: Database, quotas: Quotas) -> None:
        ghost = Account(7, "id", "ghost", "", None, 0, 0, None, 0, None, None)
        with pytest.raises(AccountUnknown):
            await quotas.grant(ghost, tokens=1)


async def test_the_record_of_a_call_says_how_it_ended(database: Database, quotas: Quotas) -> None:
    account = await opened(database, tokens=100)
    running = await quotas.hold(account, TOKENS, 50, request_id="r", attempt=2, prompt_estimate=5)
    await quotas.settle(running, Outcome.CLIENT_GONE, Stage.FIRST_FRAME, estimated=9, sid="cht1")
    async with database.connect() as connection:
        row = (await connection.execute(sa.select(holds))).one()._asdict()
    expected = {"request_id": "r", "attempt": 2, "account_id": account.account_id, "capability": "tokens", "amount": 50}
    expected |= {"state": "captured", "stage": "first frame", "outcome": "client gone"}
    expected |= {"reported": None, "charged": 9, "sid": "cht1"}
    assert {name: row[name] for name in expected} == expected
    assert row["rule"] == '{"prompt_estimate":5,"rule":2,"sealed":1}'
    assert row["opened_at"] <= row["closed_at"] <= row["lease_until"]
