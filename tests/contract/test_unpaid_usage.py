"""The bound of unpaid usage on each of the four databases: exact, also when calls fail on two nodes at the same moment.

After every test the whole books are proved: `verify` finds nothing.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa

from aiproject.accounts.api_keys.model import KeyTerms, SpendCap
from aiproject.accounts.api_keys.service import ApiKeys
from aiproject.accounts.core.model import Account
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.schema import hold as holds
from aiproject.adapters.db.schema import operator_loss as losses
from aiproject.adapters.db.schema import unpaid_usage
from aiproject.adapters.db.schema import user as users
from aiproject.errors import SpendLimitReached
from aiproject.ledger.loss_store import LossFilter, sums_of_losses
from aiproject.ledger.model import Hold, Meter, Outcome, Stage
from aiproject.ledger.service import LeaseTimes, Quotas
from aiproject.ledger.verify import verify
from bookkeeping import open_account, reread

LEASES = LeaseTimes(30)
TOKENS = Meter.TOKENS
BOUND = 500

request_ids = (f"r{number}" for number in itertools.count())


@pytest.fixture
async def quotas(database: Database) -> AsyncIterator[Quotas]:
    async with Quotas.running(database, LEASES, unpaid_per_day=BOUND) as engine:
        yield engine
    assert [str(difference) async for difference in verify(database)] == []


@pytest.fixture
async def rival(quotas: Quotas, database_url: str) -> AsyncIterator[Quotas]:
    """The engine of another process: with connections of its own."""
    elsewhere = await Database.open(database_url)
    try:
        async with Quotas.running(elsewhere, LEASES, unpaid_per_day=BOUND) as engine:
            yield engine
    finally:
        await elsewhere.close()


async def fail(
    quotas: Quotas,
    account: Account,
    seen: int,
    *,
    outcome: Outcome = Outcome.MODERATED,
    stage: Stage = Stage.FIRST_FRAME,
    used: int | None = None,
    held: int = 1000,
) -> int:
    """Make a call that fails after its caller has seen some of it; return what it is charged."""
    hold = await quotas.hold(account, TOKENS, held, need=1, request_id=next(request_ids))
    return await quotas.settle(hold, outcome, stage, estimated=seen if used is None else used, seen=seen)


async def tokens_left(database: Database, name: str = "alice") -> int:
    return (await reread(database, name)).tokens


async def counters(database: Database) -> list[int]:
    async with database.connect() as connection:
        return [row[0] for row in await connection.execute(sa.select(unpaid_usage.c.tokens))]


async def lost(database: Database) -> list[tuple[str, str, int, int]]:
    """Capability, reason, amount and what counts of it, of each loss."""
    columns = (losses.c.capability, losses.c.reason, losses.c.amount, losses.c.unpaid)
    async with database.connect() as connection:
        return sorted((row[0], row[1], row[2], row[3]) for row in await connection.execute(sa.select(*columns)))


class TestTheBound:
    async def test_what_crosses_it_is_charged_and_nothing_else(self, database: Database, quotas: Quotas) -> None:
        account = await open_account(database, "alice", tokens=10_000)
        assert [await fail(quotas, account, 300) for _ in range(4)] == [0, 100, 300, 300]
        assert await tokens_left(database) == 10_000 - 700
        assert await counters(database) == [BOUND]
        assert await lost(database) == [("tokens", "moderated", 200, 200), ("tokens", "moderated", 300, 300)]

    async def test_many_at_once_on_two_nodes_never_leave_more_unpaid(
        self, database: Database, quotas: Quotas, rival: Quotas
    ) -> None:
        account = await open_account(database, "alice", tokens=100_000)
        engines = (quotas, rival)
        taken = await asyncio.gather(*(fail(engines[n % 2], account, 70, held=100) for n in range(24)))
        assert sum(taken) == 24 * 70 - BOUND
        assert await tokens_left(database) == 100_000 - sum(taken)
        assert await counters(database) == [BOUND]
        assert sum(row[3] for row in await lost(database)) == BOUND

    async def test_never_more_than_was_held_or_there_is(self, database: Database, quotas: Quotas) -> None:
        account = await open_account(database, "alice", tokens=50)
        assert await fail(quotas, account, 520) == 20
        assert await fail(quotas, account, 1000) == 30
        assert await tokens_left(database) == 0
        assert await counters(database) == [BOUND]
        assert await lost(database) == [("tokens", "moderated", 500, 500), ("tokens", "moderated", 970, 0)]

    async def test_a_key_is_charged_no_more_than_it_may_spend(self, database: Database, quotas: Quotas) -> None:
        account = await open_account(database, "alice", tokens=10_000)
        new = await ApiKeys(database).create(account.account_id, KeyTerms("key"), {TOKENS: SpendCap(daily=60)})

        async def fail_with_key() -> int:
            held = await quotas.hold(
                account, TOKENS, 1000, need=1, request_id=next(request_ids), key_id=new.key.key_id
            )  # fmt: skip
            return await quotas.settle(held, Outcome.MODERATED, Stage.FIRST_FRAME, estimated=480, seen=480)

        assert [await fail_with_key(), await fail_with_key()] == [0, 60]
        with pytest.raises(SpendLimitReached):
            await fail_with_key()
        assert await tokens_left(database) == 10_000 - 60

    async def test_accounts_have_one_each(self, database: Database, quotas: Quotas) -> None:
        alice = await open_account(database, "alice", tokens=5000)
        bob = await open_account(database, "bob", tokens=5000)
        assert await fail(quotas, alice, 900) == 400
        assert await fail(quotas, bob, 400) == 0

    async def test_a_new_day_begins_anew(
        self, database: Database, quotas: Quotas, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        account = await open_account(database, "alice", tokens=5000)
        for day in (20260101, 20260102):
            monkeypatch.setattr("aiproject.ledger.unpaid.day_of", lambda _now, _zone, day=day: day)
            assert [await fail(quotas, account, 400) for _ in range(2)] == [0, 300]
        assert await counters(database) == [BOUND, BOUND]

    async def test_without_a_bound_all_that_was_seen_is_paid(self, database: Database, database_url: str) -> None:
        account = await open_account(database, "alice", tokens=5000)
        async with Quotas.running(database, LEASES) as strict:
            assert await fail(strict, account, 400) == 400
        assert await counters(database) == []
        assert [str(difference) async for difference in verify(database)] == []

    @pytest.mark.parametrize(
        ("outcome", "stage", "counts"),
        [
            (Outcome.MODERATED, Stage.SENT, True),
            (Outcome.TRUNCATED, Stage.FIRST_FRAME, True),
            (Outcome.TIMED_OUT, Stage.SENT, True),
            (Outcome.UPSTREAM_FAILED, Stage.FIRST_FRAME, True),
            (Outcome.SERVER_FAILED, Stage.LAST_FRAME, True),
            (Outcome.UPSTREAM_FAILED, Stage.SENT, False),
            (Outcome.SERVER_STOPPED, Stage.FIRST_FRAME, False),
            (Outcome.TIMED_OUT, Stage.HELD, False),
        ],
    )
    async def test_which_ends_count(
        self, database: Database, quotas: Quotas, outcome: Outcome, stage: Stage, counts: bool
    ) -> None:
        account = await open_account(database, "alice", tokens=5000)
        charged = [await fail(quotas, account, 300, outcome=outcome, stage=stage) for _ in range(2)]
        assert charged == ([0, 100] if counts else [0, 0])
        assert await counters(database) == ([BOUND] if counts else [])

    async def test_a_settlement_that_is_repeated_counts_once(
        self, database: Database, quotas: Quotas, rival: Quotas
    ) -> None:
        account = await open_account(database, "alice", tokens=5000)
        for expected in (0, 100):
            hold = await quotas.hold(account, TOKENS, 1000, request_id=next(request_ids))
            for engine in (quotas, rival, quotas):
                ended = await engine.settle(hold, Outcome.TRUNCATED, Stage.FIRST_FRAME, estimated=300, seen=300)
                assert ended == expected
        assert await counters(database) == [BOUND]

    async def test_a_charge_beyond_it_can_be_refunded_once(self, database: Database, quotas: Quotas) -> None:
        account = await open_account(database, "alice", tokens=5000)
        hold = await quotas.hold(account, TOKENS, 1000, request_id="mine")
        assert await quotas.settle(hold, Outcome.TRUNCATED, Stage.FIRST_FRAME, estimated=800, seen=800) == 300
        assert (await quotas.refund(account, "mine")).amount == 300
        assert await tokens_left(database) == 5000


class TestLosses:
    async def test_what_was_generated_and_not_seen_is_lost_and_not_charged(
        self, database: Database, quotas: Quotas
    ) -> None:
        account = await open_account(database, "alice", tokens=5000)
        assert [await fail(quotas, account, 400, used=900) for _ in range(2)] == [0, 300]
        assert await lost(database) == [("tokens", "moderated", 600, 100), ("tokens", "moderated", 900, 400)]

    async def test_pictures_and_clips_are_lost_without_a_bound(self, database: Database, quotas: Quotas) -> None:
        account = await open_account(database, "alice", pic_times=5, voice_ms=5000)
        for capability, units in ((Meter.PIC_TIMES, 1), (Meter.VOICE_SECONDS, 1500)):
            hold = await quotas.hold(account, capability, units, request_id=next(request_ids))
            ended = await quotas.settle(hold, Outcome.TIMED_OUT, Stage.SENT, estimated=units, seen=units)
            assert ended == 0
        assert await lost(database) == [("pic_times", "timed out", 1, 0), ("voice_seconds", "timed out", 1500, 0)]
        assert await counters(database) == []

    async def expired(self, database: Database, quotas: Quotas, account: Account) -> Hold:
        hold = await quotas.hold(account, TOKENS, 1000, request_id=next(request_ids), prompt_estimate=40)
        quotas.note(hold, Stage.SENT)
        await quotas.renew()
        async with database.begin() as connection:
            await connection.execute(sa.update(holds).values(lease_until=0))
        return hold

    async def test_of_a_dead_process_the_prompt_is_lost_and_does_not_count(
        self, database: Database, quotas: Quotas, rival: Quotas
    ) -> None:
        account = await open_account(database, "alice", tokens=5000)
        await self.expired(database, quotas, account)
        assert await rival.sweep() == 1
        assert await lost(database) == [("tokens", "server killed", 40, 0)]
        assert (await counters(database), await tokens_left(database)) == ([], 5000)

    async def test_who_was_only_held_up_and_is_charged_leaves_no_loss(
        self, database: Database, quotas: Quotas, rival: Quotas
    ) -> None:
        account = await open_account(database, "alice", tokens=5000)
        hold = await self.expired(database, quotas, account)
        assert await rival.sweep() == 1
        assert await quotas.settle(hold, Outcome.FINISHED, Stage.LAST_FRAME, reported=90) == 90
        assert await lost(database) == []

    async def test_are_summed_up_by_account_and_reason(self, database: Database, quotas: Quotas) -> None:
        alice = await open_account(database, "alice", tokens=5000)
        bob = await open_account(database, "bob", tokens=5000)
        for account, outcome in ((alice, Outcome.MODERATED), (alice, Outcome.TRUNCATED), (bob, Outcome.MODERATED)):
            for _ in range(2):
                await fail(quotas, account, 100, outcome=outcome)

        async def sums(**wanted: object) -> list[tuple[str, str, int, int, int]]:
            found = sums_of_losses(database, LossFilter(**wanted))  # type: ignore[arg-type]
            return [(each.account, each.reason, each.calls, each.amount, each.unpaid) async for each in found]

        moderated, truncated = ("alice", "moderated", 2, 200, 200), ("alice", "truncated", 2, 200, 200)
        assert sorted(await sums()) == [moderated, truncated, ("bob", "moderated", 2, 200, 200)]
        assert sorted(await sums(account_id=alice.account_id)) == [moderated, truncated]
        assert await sums(reason="truncated", days=1) == [truncated]
        async with database.begin() as connection:
            await connection.execute(sa.update(losses).values(created_at=losses.c.created_at - 2 * 86_400_000))
        assert await sums(days=1) == []


class TestProof:
    """What `verify` finds of edits; each is put back."""

    @pytest.mark.parametrize(
        ("change", "found"),
        [
            (sa.update(unpaid_usage).values(tokens=0), "unpaid usage of"),
            (sa.delete(unpaid_usage), "unpaid usage of"),
            (sa.update(losses).values(unpaid=1), "unpaid usage of"),
            (sa.update(losses).values(unpaid=10_000), "unpaid usage of request"),
            (sa.update(losses).values(unpaid=0, unpaid_day=None), "unpaid usage of"),
            (sa.update(losses).values(reason="over the hold"), "loss of the released hold"),
            (sa.update(losses).values(reason="truncated"), "loss of the released hold"),
            (sa.update(holds).values(outcome="server stopped"), "loss of the released hold"),
            (sa.update(users).values(Tokens=1), "Tokens"),
        ],
        ids=["counter", "no counter", "less", "more", "uncounted", "reason", "other reason", "outcome", "balance"],
    )
    async def test_edits_show(self, database: Database, change: sa.sql.dml.UpdateBase, found: str) -> None:
        account = await open_account(database, "alice", tokens=5000)
        async with Quotas.running(database, LEASES, unpaid_per_day=BOUND) as quotas:
            await fail(quotas, account, 300)
        assert [str(difference) async for difference in verify(database)] == []
        async with database.begin() as connection:
            await connection.execute(change)
        assert any(found in str(difference) for difference in [each async for each in verify(database)])
