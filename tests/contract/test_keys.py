"""Idempotency keys in the books: claims share transactions with everything else, on all four databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa

from aiproject.accounts.core.model import Account
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.errors import CommitInDoubt
from aiproject.adapters.db.schema import stored_answer
from aiproject.errors import AiProjectError, Unavailable
from aiproject.ledger import idempotency as keys_module
from aiproject.ledger.batcher import LedgerBatcher
from aiproject.ledger.model import ClaimKey, ClaimResult, GiveKeyUp, Key, KeyLost, Meter, Outcome, Settle, Stage
from aiproject.ledger.service import LeaseTimes, Quotas
from aiproject.ledger.verify import verify
from bookkeeping import open_account
from troubled_writer import TroubledWriter

OURS, ANSWERED, BUSY, OTHER_BODY = ClaimResult.OURS, ClaimResult.ANSWERED, ClaimResult.BUSY, ClaimResult.OTHER_BODY
KEY = Key("account 1", "k")


class House:
    """A database with an account of 1000 tokens, and books that are kept by a writer in trouble."""

    def __init__(self, database: Database, account: Account) -> None:
        self.database = database
        self.account = account
        self.writer = TroubledWriter(database)
        self.books = LedgerBatcher(database, self.writer)
        self.quotas = Quotas(database, LeaseTimes(30), self.books)

    async def rows(self) -> list[tuple[str, str, str, bytes | None]]:
        async with self.database.connect() as connection:
            row = stored_answer.c
            columns = sa.select(row.key_hash, row.request_id, row.state, row.answer).order_by(row.scope, row.key_hash)
            return [
                (a, b, c, None if d is None else bytes(d)) for a, b, c, d in await connection.execute(columns)
            ]  # fmt: skip

    async def let_leases_end(self) -> None:
        async with self.database.begin() as connection:
            await connection.execute(sa.update(stored_answer).values(lease_until=1))

    async def finish(self, key: Key, request_id: str, answer: bytes) -> int:
        """A call with a claim on ``key``, from its hold to its settlement."""
        hold = await self.quotas.hold(self.account, Meter.TOKENS, 10, request_id=request_id)
        stored = (*key, answer)
        return await self.quotas.settle(hold, Outcome.FINISHED, Stage.LAST_FRAME, reported=7, answer=stored)


@pytest.fixture
async def house(database: Database) -> AsyncIterator[House]:
    """At its end the books are proved."""
    opened = House(database, await open_account(database, "ann", tokens=1000))
    try:
        yield opened
        await opened.books.close()
        assert [difference async for difference in verify(database)] == []
    finally:
        opened.writer.gate.set()
        await opened.books.close(patience=0.1)


def claim(name: str, request_id: str, *, body: str = "body") -> ClaimKey:
    return ClaimKey(Key("account 1", name), body, request_id, 30_000)


class TestClaims:
    async def test_of_many_calls_share_a_transaction(self, house: House) -> None:
        orders = [claim(f"{n:03}", f"call {n}") for n in range(100)]
        turns = await asyncio.gather(*map(house.books.submit, orders))
        assert turns == [OURS] * 100
        assert house.writer.runs == 1
        assert len(await house.rows()) == 100

    async def test_of_one_key_in_one_transaction_are_worked_off_in_their_order(self, house: House) -> None:
        orders = [claim("k", "a"), claim("k", "b"), claim("k", "c", body="another"), claim("l", "d")]
        assert await asyncio.gather(*map(house.books.submit, orders)) == [OURS, BUSY, OTHER_BODY, OURS]
        assert house.writer.runs == 1
        assert await house.rows() == [("k", "a", "running", None), ("l", "d", "running", None)]

    async def test_given_up_and_claimed_again_in_one_transaction(self, house: House) -> None:
        await house.books.submit(claim("k", "a"))
        orders = [
            house.books.submit(claim("k", "b")),
            house.books.submit(GiveKeyUp(KEY, "b")),  # not its own to give up
            house.books.submit(claim("k", "c")),
            house.books.submit(GiveKeyUp(KEY, "a")),
            house.books.submit(claim("k", "d", body="another")),
        ]
        assert await asyncio.gather(*orders) == [BUSY, None, BUSY, None, OURS]
        assert house.writer.runs == 2
        assert await house.rows() == [("k", "d", "running", None)]

    async def test_given_up_leave_nothing(self, house: House) -> None:
        await asyncio.gather(*(house.books.submit(claim(name, "a")) for name in "klm"))
        await asyncio.gather(*(house.books.submit(GiveKeyUp(Key("account 1", name), "a")) for name in "km"))
        assert await house.rows() == [("l", "a", "running", None)]

    async def test_whose_lease_ran_out_are_taken_over(self, house: House) -> None:
        await asyncio.gather(*(house.books.submit(claim(name, "dead")) for name in "kl"))
        await house.let_leases_end()
        turns = await asyncio.gather(
            house.books.submit(claim("k", "b")),
            house.books.submit(claim("l", "c", body="another")),
            house.books.submit(claim("l", "d")),
        )
        assert list(turns) == [OURS, OTHER_BODY, OURS]
        assert [row[1] for row in await house.rows()] == ["b", "d"]

    async def test_of_calls_that_run_are_renewed(self, house: House) -> None:
        await house.quotas.claim_key(KEY, body_hash="body", request_id="a")
        await house.quotas.claim_key(Key("account 1", "gone"), body_hash="body", request_id="b")
        house.quotas.let_key_go(Key("account 1", "gone"), "b")
        house.quotas.let_key_go(KEY, "b")  # not its own to let go
        await house.let_leases_end()
        await house.quotas.renew()
        assert await house.books.submit(claim("k", "c")) is BUSY
        assert await house.books.submit(claim("gone", "c")) is OURS

    async def test_of_two_nodes_at_once_disturb_nobody(self, house: House, database_url: str) -> None:
        """Each key has one winner, though many batches of both want the same new keys in the same moment."""
        databases = [await Database.open(database_url) for _ in range(2)]
        try:
            nodes = [LedgerBatcher(database) for database in databases]
            turns = await asyncio.gather(
                *(nodes[n % 2].submit(claim(f"{n // 8:02}", f"call {n}")) for n in range(320)), return_exceptions=True
            )
        finally:
            for database in databases:
                await database.close()
        assert {turn for turn in turns if not isinstance(turn, ClaimResult)} == set()
        assert [turns[n : n + 8].count(OURS) for n in range(0, 320, 8)] == [1] * 40


class TestAnswers:
    async def test_are_stored_with_their_charges_in_one_transaction(self, house: House) -> None:
        names = [f"{n:02}" for n in range(20)]
        await asyncio.gather(*(house.books.submit(claim(name, name)) for name in names))
        runs = house.writer.runs
        answers = {name: bytes(range(256)) * 5 + b"'\\%s" + name.encode() for name in names}
        charged = await asyncio.gather(*(house.finish(Key("account 1", name), name, answers[name]) for name in names))
        assert charged == [7] * 20
        assert house.writer.runs == runs + 2, "all holds, all settlements"
        assert await house.rows() == [(name, name, "done", answers[name]) for name in names]
        assert await house.books.submit(claim("07", "late")) is ANSWERED
        assert await house.books.submit(claim("07", "late", body="another")) is OTHER_BODY

    async def test_that_are_long_are_written_in_portions(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(keys_module, "MAX_STATEMENT_BYTES", 1000)
        await asyncio.gather(*(house.books.submit(claim(name, name)) for name in "abcd"))
        lengths = {"a": 400, "b": 400, "c": 400, "d": 3000}
        await asyncio.gather(*(house.finish(Key("account 1", n), n, n.encode() * lengths[n]) for n in "abcd"))
        assert {row[0]: len(row[3] or b"") for row in await house.rows()} == lengths

    async def test_are_not_stored_nor_charged_once_the_key_is_in_other_hands(self, house: House) -> None:
        await house.books.submit(claim("k", "a"))
        hold = await house.quotas.hold(house.account, Meter.TOKENS, 10, request_id="a")
        await house.let_leases_end()
        late = Settle(hold, 7, Outcome.FINISHED, Stage.LAST_FRAME, reported=7, answer=(*KEY, b"late"))
        turn, settled = await asyncio.gather(house.books.submit(claim("k", "b")), house.books.submit(late))
        assert turn is OURS
        assert settled is not None
        assert (getattr(settled, "charged", None), getattr(settled, "is_key_lost", None)) == (0, True)
        assert await house.finish(KEY, "b", b"right") == 7
        assert await house.rows() == [("k", "b", "done", b"right")]

    async def test_are_not_given_up(self, house: House) -> None:
        await house.books.submit(claim("k", "a"))
        await house.finish(KEY, "a", b"answer")
        await house.books.submit(GiveKeyUp(KEY, "a"))
        assert await house.rows() == [("k", "a", "done", b"answer")]

    async def test_need_a_claim(self, house: House) -> None:
        with pytest.raises(KeyLost):
            await house.finish(KEY, "a", b"answer")
        assert await house.rows() == []


class TestTrouble:
    @pytest.mark.parametrize("when", ["after", "instead"])
    async def test_a_claim_whose_commit_was_in_doubt_is_found_again(self, house: House, when: str) -> None:
        house.writer.trouble(CommitInDoubt("connection lost while committing"), when=when)
        assert await house.quotas.claim_key(KEY, body_hash="body", request_id="a") is OURS
        assert await house.finish(KEY, "a", b"answer") == 7

    async def test_claims_are_refused_while_the_database_is_away(self, house: House) -> None:
        house.writer.trouble(Unavailable("away"), times=3)
        with pytest.raises(Unavailable):
            await house.quotas.claim_key(KEY, body_hash="body", request_id="a")
        assert house.quotas._keys == {}
        await house.quotas.give_key_up(KEY, "a")  # says so in the log, and raises nothing

    async def test_a_key_that_nobody_takes_is_given_up(self, house: House) -> None:
        house.writer.gate.clear()
        caller = asyncio.create_task(house.quotas.claim_key(KEY, body_hash="body", request_id="a"))
        await asyncio.sleep(0.01)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        house.writer.gate.set()
        await house.books.close()
        assert house.writer.runs == 2
        assert await house.rows() == []

    async def test_an_order_at_fault_does_not_cost_its_neighbours_their_keys(self, house: House) -> None:
        results = await asyncio.gather(
            house.books.submit(claim("k", "a")),
            house.books.submit(claim("l", "b", body="x" * 65)),  # too long for its column; SQLite does not mind
            house.books.submit(claim("m", "c")),
            return_exceptions=True,
        )
        assert (results[0], results[2]) == (OURS, OURS)
        assert results[1] is OURS if house.database.dialect == "sqlite" else isinstance(results[1], AiProjectError)
