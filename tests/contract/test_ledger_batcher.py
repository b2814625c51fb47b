"""Group commit and what a database can do to it: on all four where SQL matters, on SQLite where only the queue does."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import sqlalchemy as sa

from aiproject.accounts.core.model import Account
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.errors import CommitInDoubt, TransientConflict, UniqueViolation
from aiproject.adapters.db.schema import hold as holds
from aiproject.adapters.db.schema import ledger_entry, operator_loss
from aiproject.adapters.db.schema import user as users
from aiproject.errors import AccountUnknown, InvalidInput, QuotaBusy, QuotaExhausted, Unavailable
from aiproject.ledger import batcher as books_module
from aiproject.ledger.batcher import GATHER_ROUNDS, MAX_BATCH, LedgerBatcher, SettlementDeferred
from aiproject.ledger.model import (
    MAX_UNITS,
    Grant,
    Hold,
    HoldState,
    Kind,
    Meter,
    OpenHold,
    Outcome,
    Refunded,
    Settle,
    Settled,
    Stage,
)
from aiproject.ledger.service import LeaseTimes, Quotas
from aiproject.ledger.verify import verify
from bookkeeping import open_account, reread
from services import Server
from troubled_writer import TroubledWriter

TOKENS, PIC_TIMES, VOICE = Meter.TOKENS, Meter.PIC_TIMES, Meter.VOICE_SECONDS
LEASES = LeaseTimes(30)


class House:
    """A database with an account of 1000 tokens, and books that are kept by a writer in trouble."""

    def __init__(self, database: Database, account: Account) -> None:
        self.database = database
        self.account = account
        self.writer = TroubledWriter(database)
        self.books = LedgerBatcher(database, self.writer)
        self.quotas = Quotas(database, LEASES, self.books)

    def opening(self, request_id: str, want: int = 10, *, account_id: int | None = None) -> OpenHold:
        return OpenHold(
            account_id=self.account.account_id if account_id is None else account_id,
            capability=TOKENS,
            want=want,
            need=want,
            request_id=request_id,
            attempt=1,
            owner="tests",
            lease_ms=30_000,
            rule='{"rule":1}',
        )

    async def capture(self, hold: Hold, units: int) -> Settled | SettlementDeferred | None:
        return await self.books.submit(capturing(hold, units))

    async def balance(self) -> tuple[int, int]:
        """Tokens, and how many of them are held."""
        async with self.database.connect() as connection:
            columns = sa.select(users.c.Tokens, users.c.HeldTokens)
            row = (await connection.execute(columns.where(users.c.AccountId == self.account.account_id))).one()
        return row[0], row[1]

    async def row_of(self, request_id: str) -> Any:
        async with self.database.connect() as connection:
            return (await connection.execute(sa.select(holds).where(holds.c.request_id == request_id))).one_or_none()


def capturing(hold: Hold, units: int) -> Settle:
    return Settle(hold=hold, charge=units, outcome=Outcome.FINISHED, stage=Stage.LAST_FRAME, reported=units)


@contextlib.asynccontextmanager
async def open_house(database: Database) -> AsyncIterator[House]:
    house = House(database, await open_account(database, "ann", tokens=1000, pic_times=5))
    try:
        yield house
        await house.books.close()
        assert [difference async for difference in verify(database)] == []
    finally:
        house.writer.gate.set()
        await house.books.close(patience=0.1)


@pytest.fixture
async def house(database: Database) -> AsyncIterator[House]:
    """On each database. At its end the books are proved."""
    async with open_house(database) as opened:
        yield opened


@pytest.fixture
async def small_house(small_database: Database) -> AsyncIterator[House]:
    """On SQLite only, for what does not depend on the database."""
    async with open_house(small_database) as opened:
        yield opened


servers = pytest.mark.parametrize("database_kind", ["mariadb", "mysql", "postgresql"])
"""For tests of what SQLite does not have: a server that can go away."""


def server_of(request: pytest.FixtureRequest) -> Server:
    server = request.getfixturevalue(f"{request.getfixturevalue('database_kind')}_server")
    assert isinstance(server, Server)
    return server


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not claim():  # noqa: ASYNC110 - what is waited for knows nothing of tests
            await asyncio.sleep(0.005)


class TestGroupCommit:
    async def test_alone_an_order_goes_at_once(self, small_house: House) -> None:
        hold = await small_house.books.submit(small_house.opening("a"))
        assert small_house.writer.runs == 1
        assert await small_house.capture(hold, 7) == Settled(7, 0, HoldState.CAPTURED)
        assert small_house.writer.runs == 2

    async def test_what_gathers_meanwhile_shares_a_transaction(self, small_house: House) -> None:
        small_house.writer.gate.clear()
        first = asyncio.create_task(small_house.books.submit(small_house.opening("first")))
        await until(lambda: small_house.writer.runs == 1)
        others = [asyncio.create_task(small_house.books.submit(small_house.opening(f"{n}"))) for n in range(50)]
        await asyncio.sleep(0)
        small_house.writer.gate.set()
        await asyncio.gather(first, *others)
        assert small_house.writer.runs == 2
        assert await small_house.balance() == (1000, 510)

    async def test_what_the_loop_is_about_to_bring_shares_it_too(self, small_house: House) -> None:
        async def order_after(rounds: int) -> Hold:
            for _ in range(rounds):
                await asyncio.sleep(0)
            return await small_house.books.submit(small_house.opening(f"{rounds}"))

        await asyncio.gather(*(order_after(rounds) for rounds in range(GATHER_ROUNDS)))
        assert small_house.writer.runs == 1

    async def test_but_is_not_waited_for_for_ever(self, small_house: House) -> None:
        small_house.writer.gate.clear()
        orders = []
        for number in range(50):
            orders.append(asyncio.create_task(small_house.books.submit(small_house.opening(f"{number}"))))
            await asyncio.sleep(0)
        assert small_house.writer.runs == 1
        small_house.writer.gate.set()
        await asyncio.gather(*orders)
        assert small_house.writer.runs == 2

    async def test_very_many_are_several_transactions(self, small_house: House) -> None:
        await small_house.quotas.grant(small_house.account, tokens=100_000)
        count = 2 * MAX_BATCH + 1
        await asyncio.gather(*(small_house.books.submit(small_house.opening(f"{n}")) for n in range(count)))
        assert small_house.writer.runs == 3
        assert await small_house.balance() == (101_000, 10 * count)

    async def test_orders_are_worked_off_in_their_order(self, small_house: House) -> None:
        """Who came first gets what is left."""
        orders = [small_house.opening(f"{n}", 300) for n in range(5)]
        results = await asyncio.gather(*map(small_house.books.submit, orders), return_exceptions=True)
        assert [type(result) for result in results] == [Hold, Hold, Hold, QuotaBusy, QuotaBusy]

    async def test_a_refusal_does_not_disturb_its_neighbours(self, house: House) -> None:
        results = await asyncio.gather(
            house.books.submit(house.opening("a")),
            house.books.submit(house.opening("poor", 5000)),
            house.books.submit(house.opening("unknown", account_id=1)),
            house.books.submit(Grant(house.account.account_id, TOKENS, MAX_UNITS, Kind.GRANT, "too much")),
            house.books.submit(house.opening("b")),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [Hold, QuotaExhausted, AccountUnknown, InvalidInput, Hold]
        assert house.writer.runs == 1
        assert await house.balance() == (1000, 20)

    async def test_an_order_at_fault_fails_alone(self, house: House) -> None:
        await house.books.submit(house.opening("taken"))
        names = ["a", "taken", "b", "twice", "twice"]
        results = await asyncio.gather(
            *(house.books.submit(house.opening(name)) for name in names), return_exceptions=True
        )
        assert [type(result) for result in results] == [Hold, UniqueViolation, Hold, Hold, UniqueViolation]
        assert await house.balance() == (1000, 40)

    async def test_one_account_in_many_orders_of_a_transaction(self, house: House) -> None:
        opened = await asyncio.gather(*(house.books.submit(house.opening(f"{n}", 20)) for n in range(30)))
        assert await house.balance() == (1000, 600)
        runs = house.writer.runs
        await asyncio.gather(*(house.capture(hold, 11) for hold in opened))
        assert house.writer.runs == runs + 1
        assert await house.balance() == (670, 0)


class TestMoney:
    @pytest.mark.parametrize("nodes", [1, 2])
    async def test_of_200_calls_37_are_paid_for(self, house: House, database_url: str, nodes: int) -> None:
        databases = [await Database.open(database_url) for _ in range(nodes)]
        rich = await open_account(house.database, "rich", tokens=37 * 100 + 99)
        try:
            node_quotas = [Quotas(database, LEASES) for database in databases]

            async def call(number: int) -> int:
                quotas = node_quotas[number % nodes]
                hold = await quotas.hold(rich, TOKENS, 100, request_id=f"call {number}")
                await asyncio.sleep(0)
                return await quotas.settle(hold, Outcome.FINISHED, Stage.LAST_FRAME, reported=100)

            results = await asyncio.gather(*map(call, range(200)), return_exceptions=True)
        finally:
            for database in databases:
                await database.close()
        assert all(isinstance(result, int | QuotaExhausted) for result in results)  # or QuotaBusy, which is one
        assert sum(result == 100 for result in results) == 37
        assert (await reread(house.database, "rich")).tokens == 99

    async def test_a_small_balance_gives_a_small_hold(self, house: House) -> None:
        first = await house.quotas.hold(house.account, TOKENS, 990, request_id="a")
        second = await house.quotas.hold(house.account, TOKENS, 500, need=10, request_id="b")
        with pytest.raises(QuotaExhausted):
            await house.quotas.hold(house.account, TOKENS, 500, need=1, request_id="c")
        assert (first.amount, second.amount) == (990, 10)

    async def test_nothing_is_taken_away_that_is_held(self, house: House) -> None:
        hold = await house.quotas.hold(house.account, TOKENS, 400, request_id="a")
        await house.quotas.grant(house.account, tokens=-5000)
        assert await house.balance() == (400, 400)
        assert await house.quotas.settle(hold, Outcome.FINISHED, Stage.LAST_FRAME, reported=400) == 400
        assert await house.balance() == (0, 0)

    async def test_what_is_reported_beyond_the_hold_is_the_operator_s_loss(self, house: House) -> None:
        for request_id, reported, charged, lost in [("a", 130, 100, 30), ("b", 10**30, 100, MAX_UNITS - 100)]:
            hold = await house.quotas.hold(house.account, TOKENS, 100, request_id=request_id)
            end = (Outcome.FINISHED, Stage.LAST_FRAME)
            assert await house.quotas.settle(hold, *end, reported=reported, sid="x\udc80\0" * 50) == charged
            async with house.database.connect() as connection:
                loss = (
                    await connection.execute(sa.select(operator_loss).where(operator_loss.c.request_id == request_id))
                ).one()
            assert (loss.amount, loss.reason) == (lost, "over the hold")
        assert await house.balance() == (800, 0)

    async def test_a_report_below_zero_adds_nothing(self, house: House) -> None:
        hold = await house.quotas.hold(house.account, TOKENS, 100, request_id="a")
        assert await house.quotas.settle(hold, Outcome.FINISHED, Stage.LAST_FRAME, reported=-50) == 0
        assert await house.balance() == (1000, 0)

    async def test_unmetered_dictation_is_counted(self, house: House) -> None:
        end = (Outcome.FINISHED, Stage.LAST_FRAME)
        hold = await house.quotas.hold(house.account, VOICE, 60_000, request_id="a")
        assert await house.quotas.settle(hold, *end, reported=60_000) == 60_000
        during = await house.quotas.hold(house.account, VOICE, 8000, request_id="b")
        await house.quotas.grant(house.account, voice_seconds=5)  # metered from now on
        assert await house.quotas.settle(during, *end, reported=8000) == 5000
        ann = await reread(house.database, "ann")
        assert (ann.voice_ms, ann.voice_used_ms) == (0, 65_000)
        with pytest.raises(QuotaExhausted):
            await house.quotas.hold(house.account, VOICE, 1, request_id="c")

    async def test_a_settlement_counts_once(self, house: House) -> None:
        hold = await house.quotas.hold(house.account, TOKENS, 100, request_id="a")
        finished = [
            house.quotas.settle(hold, Outcome.FINISHED, Stage.LAST_FRAME, reported=60),
            house.quotas.settle(hold, Outcome.FINISHED, Stage.LAST_FRAME, reported=60),
        ]
        assert await asyncio.gather(*finished) == [60, 60]
        assert await house.quotas.settle(hold, Outcome.UPSTREAM_FAILED, Stage.SENT) == 60
        free = await house.quotas.hold(house.account, TOKENS, 100, request_id="b")
        assert await house.quotas.settle(free, Outcome.UPSTREAM_FAILED, Stage.SENT) == 0
        assert await house.quotas.settle(free, Outcome.FINISHED, Stage.LAST_FRAME, reported=60) == 0
        assert await house.balance() == (940, 0)

    async def test_attempts_of_a_call_are_charged_each_for_itself(self, house: House) -> None:
        first = await house.quotas.hold(house.account, TOKENS, 100, request_id="a", attempt=1)
        second = await house.quotas.hold(house.account, TOKENS, 100, request_id="a", attempt=2)
        await house.quotas.settle(first, Outcome.UPSTREAM_FAILED, Stage.SENT)
        await house.quotas.settle(second, Outcome.FINISHED, Stage.LAST_FRAME, reported=30)
        assert await house.balance() == (970, 0)

    async def test_of_a_deleted_account_nothing_is_left_over(self, house: House) -> None:
        gone = await open_account(house.database, "gone", tokens=100)
        hold = await house.quotas.hold(gone, TOKENS, 50, request_id="a")
        await house.quotas.hold(gone, TOKENS, 50, request_id="b")
        async with house.database.begin() as connection:
            await connection.execute(sa.delete(users).where(users.c.AccountId == gone.account_id))
            await connection.execute(sa.delete(ledger_entry).where(ledger_entry.c.account_id == gone.account_id))
            await connection.execute(sa.update(holds).where(holds.c.request_id == "b").values(lease_until=1))
        assert await house.quotas.settle(hold, Outcome.FINISHED, Stage.LAST_FRAME, reported=40) == 0
        assert await house.quotas.sweep() == 1
        assert await house.quotas.sweep() == 0
        closed = [await house.row_of(name) for name in ("a", "b")]
        assert [(row.state, row.charged) for row in closed] == [("captured", 0), ("released", 0)]
        with pytest.raises(AccountUnknown):
            await house.quotas.hold(gone, TOKENS, 1, request_id="c")
        async with house.database.begin() as connection:  # else the proof finds the holds of nobody
            assert (await connection.scalars(sa.select(operator_loss.c.reason))).all() == ["account gone"]
            await connection.execute(sa.delete(holds).where(holds.c.account_id == gone.account_id))
            await connection.execute(sa.delete(operator_loss))


class TestRefunds:
    async def charge(self, house: House, request_id: str, units: int, *, attempt: int = 1) -> None:
        hold = await house.quotas.hold(house.account, TOKENS, 100, request_id=request_id, attempt=attempt)
        await house.quotas.settle(hold, Outcome.FINISHED, Stage.LAST_FRAME, reported=units)

    async def test_give_back_once_however_many_ask(self, house: House) -> None:
        await self.charge(house, "a", 60)
        await self.charge(house, "b", 7)
        results = await asyncio.gather(
            *(house.quotas.refund(house.account, "a") for _ in range(5)), return_exceptions=True
        )
        assert [result for result in results if isinstance(result, Refunded)] == [Refunded(TOKENS, 60, 1)]
        assert sum(isinstance(result, InvalidInput) for result in results) == 4
        assert await house.balance() == (993, 0)

    async def test_are_of_one_try(self, house: House) -> None:
        await self.charge(house, "a", 60, attempt=1)
        await self.charge(house, "a", 7, attempt=2)
        with pytest.raises(InvalidInput, match="REFUND_ATTEMPT_AMBIGUOUS"):
            await house.quotas.refund(house.account, "a")
        assert await house.quotas.refund(house.account, "a", attempt=2) == Refunded(TOKENS, 7, 2)
        assert await house.quotas.refund(house.account, "a", attempt=1) == Refunded(TOKENS, 60, 1)
        assert await house.balance() == (1000, 0)

    async def test_are_of_the_account_s_own_charged_calls(self, house: House) -> None:
        await self.charge(house, "a", 60)
        await self.charge(house, "free", 0)
        await house.quotas.hold(house.account, TOKENS, 100, request_id="open")
        other = await open_account(house.database, "other", tokens=1000)
        for account, request_id in [(other, "a"), (house.account, "free"), (house.account, "open"), (other, "none")]:
            with pytest.raises(InvalidInput, match="REFUND_NOTHING_CHARGED"):
                await house.quotas.refund(account, request_id)
        assert (await reread(house.database, "other")).tokens == 1000

    async def test_give_nothing_for_what_was_not_metered(self, house: House) -> None:
        hold = await house.quotas.hold(house.account, VOICE, 5000, request_id="a")
        await house.quotas.settle(hold, Outcome.FINISHED, Stage.LAST_FRAME, reported=5000)
        for _ in range(2):
            with pytest.raises(InvalidInput, match="REFUND_NOT_METERED"):
                await house.quotas.refund(house.account, "a")
            await house.quotas.grant(house.account, voice_seconds=1)  # metered from now on
        assert (await reread(house.database, "ann")).voice_ms == 2000

    async def test_of_metered_dictation(self, house: House) -> None:
        await house.quotas.grant(house.account, voice_seconds=60)
        hold = await house.quotas.hold(house.account, VOICE, 5000, request_id="a")
        await house.quotas.settle(hold, Outcome.FINISHED, Stage.LAST_FRAME, reported=5000)
        assert await house.quotas.refund(house.account, "a") == Refunded(VOICE, 5000, 1)
        ann = await reread(house.database, "ann")
        assert (ann.voice_ms, ann.voice_used_ms) == (60_000, 5000), "it was dictated all the same"


class TestCallersWhoLeave:
    async def test_a_hold_that_nobody_takes_is_released(self, small_house: House) -> None:
        small_house.writer.gate.clear()
        caller = asyncio.create_task(small_house.quotas.hold(small_house.account, TOKENS, 100, request_id="a"))
        await until(lambda: small_house.writer.runs == 1)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        small_house.writer.gate.set()
        await until(lambda: small_house.writer.runs == 2)
        await small_house.books.close()
        row = await small_house.row_of("a")
        assert (row.state, row.outcome, row.stage) == ("released", "client gone", "held")
        assert await small_house.balance() == (1000, 0)

    async def test_also_if_its_caller_is_cancelled_in_the_moment_of_being_told(
        self, small_house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        caller = asyncio.create_task(small_house.quotas.hold(small_house.account, TOKENS, 100, request_id="a"))
        tell = small_house.books._resolve

        def tell_and_cancel(*arguments: Any) -> None:
            tell(*arguments)
            caller.cancel()

        monkeypatch.setattr(small_house.books, "_resolve", tell_and_cancel)
        with pytest.raises(asyncio.CancelledError):
            await caller
        monkeypatch.undo()
        await small_house.books.close()
        assert (await small_house.row_of("a")).state == "released"

    async def test_a_settlement_is_done_without_its_caller(self, small_house: House) -> None:
        hold = await small_house.quotas.hold(small_house.account, TOKENS, 100, request_id="a")
        small_house.writer.gate.clear()
        end = (Outcome.FINISHED, Stage.LAST_FRAME)
        caller = asyncio.create_task(small_house.quotas.settle(hold, *end, reported=40))
        await until(lambda: small_house.writer.runs == 2)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        small_house.writer.gate.set()
        await small_house.books.close()
        assert await small_house.balance() == (960, 0)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No long pauses between tries."""
    monkeypatch.setattr(books_module, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(books_module, "MAX_PAUSE", 0.01)


@pytest.mark.usefixtures("quick")
class TestConflicts:
    async def test_a_batch_in_the_way_of_others_is_done_again(self, small_house: House) -> None:
        small_house.writer.trouble(TransientConflict("deadlock"), times=10)
        hold = await small_house.books.submit(small_house.opening("a"))
        small_house.writer.trouble(TransientConflict("deadlock"), times=10)
        assert await small_house.capture(hold, 7) == Settled(7, 0, HoldState.CAPTURED)
        assert small_house.writer.runs == 22
        assert await small_house.balance() == (993, 0)

    async def test_in_the_end_holds_give_up_and_settlements_do_not(
        self, small_house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(books_module, "CONFLICT_SECONDS", 0.05)
        hold = await small_house.books.submit(small_house.opening("a"))
        small_house.writer.trouble(TransientConflict("deadlock"), times=40)
        results = await asyncio.gather(
            small_house.books.submit(small_house.opening("b")), small_house.capture(hold, 7), return_exceptions=True
        )
        assert isinstance(results[0], Unavailable)
        assert results[1] == Settled(7, 0, HoldState.CAPTURED)
        assert await small_house.row_of("b") is None
        assert await small_house.balance() == (993, 0)

    async def test_a_hold_that_takes_too_long_is_refused_and_released(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A real one: the account's row is locked by somebody else, and freed while the hold is on its way."""
        monkeypatch.setattr(books_module, "COMMAND_PATIENCE", 0.3)
        monkeypatch.setattr(books_module, "PATIENCE_CHECK", 0.1)
        if house.database.dialect == "sqlite":
            other = sqlite3.connect(house.database.path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unavailable, match="did not commit"):
                await house.books.submit(house.opening("a"))
            other.close()
        else:
            async with house.database.begin() as connection:
                row = sa.select(users.c.Tokens).where(users.c.AccountId == house.account.account_id).with_for_update()
                await connection.execute(row)
                with pytest.raises(Unavailable, match="did not commit"):
                    await house.books.submit(house.opening("a"))
        async with asyncio.timeout(20):
            while True:
                found = await house.row_of("a")
                if found is not None and found.state == "released":
                    break
                await asyncio.sleep(0.05)
        assert await house.balance() == (1000, 0)

    async def test_another_transaction_on_the_row_is_waited_for(self, house: House) -> None:
        """A real one: the account's row is locked by somebody else."""
        if house.database.dialect == "sqlite":
            other = sqlite3.connect(house.database.path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            waiting = asyncio.create_task(house.books.submit(house.opening("a")))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            other.execute("ROLLBACK")
            other.close()
        else:
            async with house.database.begin() as connection:
                row = sa.select(users.c.Tokens).where(users.c.AccountId == house.account.account_id).with_for_update()
                await connection.execute(row)
                waiting = asyncio.create_task(house.books.submit(house.opening("a")))
                await asyncio.sleep(0.2)
                assert not waiting.done()
        assert (await waiting).amount == 10

    async def test_batches_of_two_nodes_that_cross_each_other(self, house: House, database_url: str) -> None:
        """Many accounts in many orders: whoever locks them otherwise than by their numbers meets himself here."""
        accounts = [await open_account(house.database, f"person {n}", tokens=10_000) for n in range(6)]
        nodes = [await Database.open(database_url) for _ in range(3)]
        try:

            async def caller(number: int) -> None:
                quotas = Quotas(nodes[number % 3], LEASES, node_books[number % 3])
                for turn in range(12):
                    account = accounts[(number * 5 + turn * 7) % len(accounts)]
                    hold = await quotas.hold(account, TOKENS, 10, request_id=f"{number}:{turn}")
                    await quotas.settle(hold, Outcome.FINISHED, Stage.LAST_FRAME, reported=3)

            node_books = [LedgerBatcher(node) for node in nodes]
            await asyncio.gather(*map(caller, range(18)))
        finally:
            for node in nodes:
                await node.close()
        left = [(await reread(house.database, account.username)).tokens for account in accounts]
        assert 6 * 10_000 - sum(left) == 18 * 12 * 3


@pytest.mark.usefixtures("quick")
class TestCommitsInDoubt:
    @pytest.mark.parametrize("when", ["after", "instead"])
    async def test_nothing_is_done_twice_and_nothing_is_forgotten(self, house: House, when: str) -> None:
        """The connection breaks in the commit: after it was done in truth, or before."""
        lost = CommitInDoubt("connection lost while committing")
        house.writer.trouble(lost, when=when)
        opened = await asyncio.gather(
            *(house.quotas.hold(house.account, TOKENS, 100, request_id=f"{n}") for n in range(3))
        )
        assert await house.balance() == (1000, 300)
        house.writer.trouble(lost, when=when)
        charged = await asyncio.gather(
            house.quotas.settle(opened[0], Outcome.FINISHED, Stage.LAST_FRAME, reported=60),
            house.quotas.settle(opened[1], Outcome.UPSTREAM_FAILED, Stage.FIRST_FRAME),
            house.quotas.settle(opened[2], Outcome.FINISHED, Stage.LAST_FRAME, reported=130),
        )
        assert list(charged) == [60, 0, 100]
        assert await house.balance() == (840, 0)
        assert house.writer.runs == 4

    @pytest.mark.parametrize("when", ["after", "instead"])
    async def test_a_hold_in_doubt_is_given_back_if_the_database_stays_away(self, house: House, when: str) -> None:
        house.writer.trouble(CommitInDoubt("connection lost while committing"), when=when)
        house.writer.trouble(Unavailable("away"), times=5)
        with pytest.raises(Unavailable):
            await house.quotas.hold(house.account, TOKENS, 100, request_id="a")
        await until(lambda: not house.books.is_database_away)
        await house.books.close()
        row = await house.row_of("a")
        assert row is None if when == "instead" else (row.state, row.charged) == ("released", 0)
        assert await house.balance() == (1000, 0)

    async def test_the_doubt_outlasts_a_fault_in_the_batch(self, house: House) -> None:
        await house.books.submit(house.opening("taken"))
        house.writer.trouble(CommitInDoubt("connection lost while committing"), when="instead")
        results = await asyncio.gather(
            *(house.books.submit(house.opening(name)) for name in ("a", "taken", "b")), return_exceptions=True
        )
        # "taken" is of this owner, so that after a doubt it cannot be told from an order that was done.
        assert [type(result) for result in results] == [Hold, Hold, Hold]
        assert await house.balance() == (1000, 30)


@pytest.mark.usefixtures("quick")
class TestOutages:
    async def test_holds_are_refused_at_once_and_settlements_kept(self, small_house: House) -> None:
        hold = await small_house.quotas.hold(small_house.account, TOKENS, 100, request_id="a")
        small_house.writer.trouble(Unavailable("away"), times=1000)
        settling = asyncio.create_task(small_house.quotas.settle(hold, Outcome.FINISHED, Stage.LAST_FRAME, reported=40))
        await until(lambda: small_house.books.is_database_away)
        small_house.writer.gate.clear()
        with pytest.raises(Unavailable):  # it does not even try
            await small_house.quotas.hold(small_house.account, TOKENS, 100, request_id="b")
        assert not settling.done()
        small_house.writer.troubles.clear()
        small_house.writer.gate.set()
        assert await settling == 40
        await small_house.quotas.hold(small_house.account, TOKENS, 100, request_id="c")
        assert await small_house.balance() == (960, 100)

    async def test_those_that_wait_in_the_queue_are_refused_too(self, small_house: House) -> None:
        small_house.writer.trouble(Unavailable("away"), times=1000)
        small_house.writer.gate.clear()
        first = asyncio.create_task(small_house.books.submit(small_house.opening("a")))
        await until(lambda: small_house.writer.runs == 1)
        second = asyncio.create_task(small_house.books.submit(small_house.opening("b")))
        await asyncio.sleep(0)
        small_house.writer.gate.set()
        results = await asyncio.gather(first, second, return_exceptions=True)
        assert [type(result) for result in results] == [Unavailable, Unavailable]
        small_house.writer.troubles.clear()

    async def test_its_end_is_noticed_without_an_order(self, small_house: House) -> None:
        small_house.writer.trouble(Unavailable("away"), times=3)
        with pytest.raises(Unavailable):
            await small_house.books.submit(small_house.opening("a"))
        await until(lambda: not small_house.books.is_database_away)
        await small_house.books.submit(small_house.opening("b"))

    async def test_a_caller_does_not_wait_for_ever(self, small_house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(books_module, "SETTLE_PATIENCE", 0.1)
        hold = await small_house.quotas.hold(small_house.account, TOKENS, 100, request_id="a")
        small_house.writer.gate.clear()
        told: list[object] = []
        assert await small_house.books.submit(capturing(hold, 140), told.append) == SettlementDeferred()
        assert told == []
        small_house.writer.gate.set()
        await small_house.books.close()
        assert told == [Settled(100, 40, HoldState.CAPTURED)]
        assert await small_house.balance() == (900, 0)

    @servers
    async def test_a_server_that_is_killed_and_comes_back(self, house: House, request: pytest.FixtureRequest) -> None:
        server = server_of(request)
        quotas = Quotas(house.database, LEASES)
        hold = await quotas.hold(house.account, TOKENS, 100, request_id="a")
        server.kill()
        try:
            settling = asyncio.create_task(quotas.settle(hold, Outcome.FINISHED, Stage.LAST_FRAME, reported=40))
            with pytest.raises(Unavailable):
                await quotas.hold(house.account, TOKENS, 100, request_id="b")
            await asyncio.sleep(0.3)
            assert not settling.done()
        finally:
            server.start()
        async with asyncio.timeout(20):
            assert await settling == 40
            while True:
                with contextlib.suppress(Unavailable):
                    await quotas.hold(house.account, TOKENS, 100, request_id="c")
                    break
                await asyncio.sleep(0.05)
        assert await house.balance() == (960, 100)

    @servers
    async def test_a_connection_that_the_server_closed_meanwhile_is_opened_again(
        self, house: House, request: pytest.FixtureRequest
    ) -> None:
        server = server_of(request)
        quotas = Quotas(house.database, LEASES)
        await quotas.hold(house.account, TOKENS, 100, request_id="a")
        server.stop()
        server.start()
        await quotas.hold(house.account, TOKENS, 100, request_id="b")
        assert await house.balance() == (1000, 200)

    @servers
    async def test_a_server_that_hangs(
        self, house: House, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if house.database.dialect == "sqlite":
            pytest.skip("SQLite has no server that could hang")
        monkeypatch.setattr("aiproject.adapters.db.runner.TRANSACTION_SECONDS", 1.0)
        server: Server = request.getfixturevalue(f"{request.node.callspec.params['database_kind']}_server")
        quotas = Quotas(house.database, LEASES)
        hold = await quotas.hold(house.account, TOKENS, 100, request_id="a")
        server.pause()
        try:
            settling = asyncio.create_task(quotas.settle(hold, Outcome.FINISHED, Stage.LAST_FRAME, reported=40))
            with pytest.raises(Unavailable):
                await quotas.hold(house.account, TOKENS, 100, request_id="b")
            async with asyncio.timeout(0.5):
                with pytest.raises(Unavailable):
                    await quotas.hold(house.account, TOKENS, 100, request_id="c")
        finally:
            server.resume()
        async with asyncio.timeout(20):
            assert await settling == 40
        assert await house.balance() == (960, 0)


async def expire(database: Database) -> None:
    async with database.begin() as connection:
        await connection.execute(sa.update(holds).values(lease_until=holds.c.opened_at - 1))


class TestLeases:
    async def test_are_renewed_while_their_call_lives(self, house: House) -> None:
        async with Quotas.running(house.database, LeaseTimes(1.0)) as quotas:
            hold = await quotas.hold(house.account, TOKENS, 100, request_id="a")
            quotas.note(hold, Stage.FIRST_FRAME)
            await asyncio.sleep(2.2)
            assert await house.quotas.sweep() == 0
            row = await house.row_of("a")
            assert (row.state, row.stage) == ("open", "first frame")
            assert await quotas.settle(hold, Outcome.FINISHED, Stage.LAST_FRAME, reported=40) == 40
            assert quotas._open == {}

    async def test_but_not_of_holds_that_are_closed(self, house: House) -> None:
        held_up = Quotas(house.database, LEASES)
        hold = await held_up.hold(house.account, TOKENS, 100, request_id="a")
        await expire(house.database)
        await house.quotas.sweep()
        before = await house.row_of("a")
        held_up.note(hold, Stage.LAST_FRAME)
        await held_up.renew()
        assert await house.row_of("a") == before

    async def test_only_of_calls_that_live(self, house: House) -> None:
        """A hold that its caller lost is not kept alive by the others of its process."""
        quotas = Quotas(house.database, LEASES)
        kept = await quotas.hold(house.account, TOKENS, 100, request_id="kept")
        lost = await quotas.hold(house.account, TOKENS, 100, request_id="lost")
        await quotas.settle(kept, Outcome.FINISHED, Stage.LAST_FRAME, reported=1)
        quotas._open.pop((lost.request_id, lost.attempt))
        await quotas.hold(house.account, TOKENS, 100, request_id="other")
        await expire(house.database)
        await quotas.renew()
        assert await house.quotas.sweep() == 1
        states = [(await house.row_of(name)).state for name in ("kept", "lost", "other")]
        assert states == ["captured", "released", "open"]

    async def test_an_orphan_is_swept_once(self, house: House, database_url: str) -> None:
        dead = Quotas(house.database, LEASES)
        for number in range(20):
            hold = await dead.hold(house.account, TOKENS, 10, request_id=f"{number}")
            dead.note(hold, Stage.FIRST_FRAME)
        await dead.renew()
        await expire(house.database)
        others = [await Database.open(database_url) for _ in range(2)]
        try:
            counts = await asyncio.gather(*(Quotas(other, LEASES).sweep() for other in (*others, house.database)))
        finally:
            for other in others:
                await other.close()
        assert sum(counts) == 20
        row = await house.row_of("7")
        assert (row.state, row.outcome, row.stage, row.charged) == ("released", "server killed", "first frame", 0)
        assert await house.balance() == (1000, 0)

    async def test_a_hold_that_somebody_spoilt_does_not_keep_others_from_being_swept(self, house: House) -> None:
        for name, values in [("a", {"stage": "gone"}), ("b", {"capability": "gold"}), ("c", {})]:
            await house.quotas.hold(house.account, TOKENS, 10, request_id=name)
            async with house.database.begin() as connection:
                spoilt = sa.update(holds).where(holds.c.request_id == name).values(lease_until=1, **values)
                await connection.execute(spoilt)
        assert await house.quotas.sweep() == 1
        assert [(await house.row_of(name)).state for name in "abc"] == ["open", "open", "released"]
        async with house.database.begin() as connection:  # mended, for the proof
            mended = {"stage": "held", "capability": "tokens", "lease_until": holds.c.opened_at + 30_000}
            await connection.execute(sa.update(holds).values(mended))

    async def test_a_sweeper_leaves_alone_what_was_renewed_meanwhile(self, house: House) -> None:
        hold = await house.quotas.hold(house.account, TOKENS, 10, request_id="a")
        order = Settle(hold=hold, charge=0, outcome=Outcome.SERVER_KILLED, stage=Stage.HELD, expired_only=True)
        assert await house.books.submit(order) is None
        assert await house.balance() == (1000, 10)

    async def test_a_late_answer_is_charged_once(self, house: House) -> None:
        hold = await house.quotas.hold(house.account, TOKENS, 100, request_id="a")
        await expire(house.database)
        assert await house.quotas.sweep() == 1
        end = (Outcome.FINISHED, Stage.LAST_FRAME)
        assert await house.quotas.settle(hold, *end, reported=60) == 60
        assert await house.quotas.settle(hold, *end, reported=60) == 60
        assert await house.balance() == (940, 0)

    async def test_from_what_is_free_then(self, house: House) -> None:
        hold = await house.quotas.hold(house.account, TOKENS, 100, request_id="a")
        await expire(house.database)
        await house.quotas.sweep()
        other = await house.quotas.hold(house.account, TOKENS, 970, request_id="b")
        assert await house.quotas.settle(hold, Outcome.FINISHED, Stage.LAST_FRAME, reported=60) == 30
        assert await house.quotas.settle(other, Outcome.FINISHED, Stage.LAST_FRAME, reported=970) == 970
        assert await house.balance() == (0, 0)
        async with house.database.connect() as connection:
            losses = (await connection.execute(sa.select(operator_loss.c.amount, operator_loss.c.reason))).all()
        assert losses == [(30, "late")]

    async def test_a_late_failure_costs_nothing(self, house: House) -> None:
        hold = await house.quotas.hold(house.account, TOKENS, 100, request_id="a")
        await expire(house.database)
        await house.quotas.sweep()
        assert await house.quotas.settle(hold, Outcome.UPSTREAM_FAILED, Stage.FIRST_FRAME, reported=60) == 0
        assert (await house.row_of("a")).outcome == "server killed"
        assert await house.balance() == (1000, 0)


class TestTheEnd:
    async def test_what_was_ordered_is_committed_first(self, small_house: House) -> None:
        orders = [asyncio.create_task(small_house.books.submit(small_house.opening(f"{n}"))) for n in range(3)]
        await asyncio.sleep(0)
        await small_house.books.close()
        assert [order.result().amount for order in orders] == [10, 10, 10]
        with pytest.raises(Unavailable):
            await small_house.books.submit(small_house.opening("late"))
        told: list[object] = []
        with pytest.raises(Unavailable):
            await small_house.books.submit(capturing(orders[0].result(), 1), told.append)
        assert [type(result) for result in told] == [Unavailable]

    async def test_but_not_with_endless_patience(self, small_house: House) -> None:
        hold = await small_house.quotas.hold(small_house.account, TOKENS, 100, request_id="a")
        small_house.writer.gate.clear()
        told: list[object] = []
        settling = asyncio.create_task(small_house.books.submit(capturing(hold, 5), told.append))
        opening = asyncio.create_task(small_house.books.submit(small_house.opening("b")))
        await until(lambda: small_house.writer.runs == 2)
        await small_house.books.close(patience=0.1)
        results = await asyncio.gather(settling, opening, return_exceptions=True)
        assert [type(result) for result in results] == [Unavailable, Unavailable]
        assert [type(result) for result in told] == [Unavailable]
        assert await small_house.balance() == (1000, 100)  # the sweeper sees to that

    async def test_nor_with_a_database_that_is_away(self, small_house: House) -> None:
        small_house.writer.trouble(Unavailable("away"), times=1000)
        with pytest.raises(Unavailable):
            await small_house.books.submit(small_house.opening("a"))
        async with asyncio.timeout(3):
            await small_house.books.close()
        small_house.writer.troubles.clear()
