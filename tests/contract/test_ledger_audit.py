"""`verify` over real databases: clean books give nothing, each kind of damage is found, and writers do not disturb."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from aiproject.accounts.core.model import Account
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.schema import hold, ledger_entry, operator_loss, user, voucher
from aiproject.errors import QuotaExhausted
from aiproject.ledger.chain import seal
from aiproject.ledger.model import Meter, Outcome, Stage
from aiproject.ledger.service import LeaseTimes, Quotas
from aiproject.ledger.verify import Checked, Difference, verify
from aiproject.vouchers.service import Vouchers
from bookkeeping import copy_books, open_account, reread, restore_books

TOKENS, PIC_TIMES, VOICE = Meter.TOKENS, Meter.PIC_TIMES, Meter.VOICE_SECONDS


async def differences(database: Database, *, overdue_seconds: float = 60.0) -> list[Difference]:
    return [difference async for difference in verify(database, overdue_seconds=overdue_seconds)]


async def call(
    quotas: Quotas,
    account: Account,
    capability: Meter,
    amount: int,
    request_id: str,
    *,
    reported: int | None,
    outcome: Outcome = Outcome.FINISHED,
    stage: Stage = Stage.LAST_FRAME,
    estimated: int = 0,
) -> int:
    held = await quotas.hold(account, capability, amount, request_id=request_id)
    return await quotas.settle(held, outcome, stage, reported=reported, estimated=estimated, sid="iat1")


@pytest.fixture
async def quotas(database: Database) -> AsyncIterator[Quotas]:
    async with Quotas.running(database, LeaseTimes(30)) as quotas:
        yield quotas


async def keep_books(database: Database, quotas: Quotas) -> tuple[Account, Account]:
    """Two accounts with a bit of everything that happens in books."""
    ann = await open_account(database, "ann", tokens=1000, pic_times=5)
    bob = await open_account(database, "bob", tokens=50, pic_times=0, voice_ms=90_000)
    await call(quotas, ann, TOKENS, 200, "chat", reported=120)
    await call(quotas, ann, TOKENS, 100, "over", reported=130)
    await call(quotas, ann, TOKENS, 100, "left", reported=None, outcome=Outcome.CLIENT_GONE, estimated=60)
    await call(quotas, ann, TOKENS, 100, "failed", reported=None, outcome=Outcome.UPSTREAM_FAILED)
    await call(quotas, ann, PIC_TIMES, 1, "picture", reported=1)
    await call(quotas, ann, VOICE, 4000, "unmetered", reported=4000)
    await quotas.hold(ann, VOICE, 60_000, request_id="talking on")
    await quotas.grant(ann, voice_seconds=10)
    await quotas.hold(ann, TOKENS, 300, request_id="running")
    await call(quotas, bob, VOICE, 3000, "metered", reported=3000)
    await call(quotas, bob, TOKENS, 50, "same", reported=10)
    await quotas.grant(bob, tokens=-1000, pic_times=2)
    return await reread(database, "ann"), await reread(database, "bob")


class TestCleanBooks:
    async def test_of_nobody(self, database: Database) -> None:
        assert await differences(database) == []

    async def test_with_a_bit_of_everything(self, database: Database, quotas: Quotas) -> None:
        ann, bob = await keep_books(database, quotas)
        checked = Checked()
        assert [difference async for difference in verify(database, checked=checked)] == []
        assert (ann.tokens, ann.pic_times, ann.voice_ms, ann.voice_used_ms) == (720, 4, 10_000, 4000)
        assert (bob.tokens, bob.pic_times, bob.voice_ms, bob.voice_used_ms) == (0, 2, 87_000, 3000)
        assert checked == Checked(accounts=2, entries=14, holds=10, losses=1)

    async def test_a_late_settlement_after_the_sweep(self, database: Database, quotas: Quotas) -> None:
        ann = await open_account(database, "ann", tokens=100)
        slow = await quotas.hold(ann, TOKENS, 80, request_id="slow")
        async with database.begin() as connection:
            await connection.execute(sa.update(hold).values(lease_until=1))
        assert await quotas.sweep() == 1
        await call(quotas, ann, TOKENS, 70, "quick", reported=70)
        assert await quotas.settle(slow, Outcome.FINISHED, Stage.LAST_FRAME, reported=80) == 30
        assert await differences(database) == []

    async def test_of_more_accounts_than_a_page_holds(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("aiproject.ledger.verify.PAGE_ACCOUNTS", 3)
        monkeypatch.setattr("aiproject.ledger.verify.PAGE_ENTRIES", 4)
        for number in range(7):
            await open_account(database, f"person {number}", tokens=10, pic_times=number)
        checked = Checked()
        assert [difference async for difference in verify(database, checked=checked)] == []
        assert (checked.accounts, checked.entries) == (7, 13)


def change(table: sa.Table, key: str, **values: Any) -> sa.Update:
    column = {user: user.c.UserName, hold: hold.c.request_id, operator_loss: operator_loss.c.request_id}
    return sa.update(table).where(column[table] == key).values(values)


def change_entry(name: str, seq: int, **values: Any) -> sa.Update:
    account = sa.select(user.c.AccountId).where(user.c.UserName == name).scalar_subquery()
    return sa.update(ledger_entry).where(ledger_entry.c.account_id == account, ledger_entry.c.seq == seq).values(values)


def entry_of(request_id: str) -> sa.ColumnElement[bool]:
    return ledger_entry.c.request_id == request_id


DAMAGE: Sequence[tuple[str, sa.Update | sa.Delete, str]] = (
    # The row that people see.
    ("tokens added by hand", change(user, "ann", Tokens=721), "Tokens"),
    ("pictures added by hand", change(user, "bob", PicTimes=3), "PicTimes"),
    ("seconds taken by hand", change(user, "bob", VoiceMs=0), "VoiceMs"),
    ("made unmetered by hand", change(user, "bob", VoiceMs=None), "VoiceMs"),
    ("dictation forgotten", change(user, "ann", VoiceUsedMs=0), "VoiceUsedMs"),
    ("a hold forgotten in the row", change(user, "ann", HeldTokens=0), "HeldTokens"),
    ("more held than there is", change(user, "bob", HeldPicTimes=3), "HeldPicTimes"),
    ("another head", change(user, "ann", LedgerHash="0" * 64), "hash of the newest entry"),
    ("another number", change(user, "ann", LedgerSeq=3), "number of the newest entry"),
    # Entries.
    ("an amount", change_entry("ann", 3, amount=-100), "hash of entry 3"),
    ("a balance", change_entry("ann", 3, balance=881), "balance of entry 3"),
    ("a kind", change_entry("ann", 1, kind="grant"), "hash of entry 1"),
    ("a rule", change_entry("ann", 3, rule="{}"), "hash of entry 3"),
    ("a time", change_entry("ann", 3, created_at=1), "hash of entry 3"),
    ("an unknown capability", change_entry("ann", 3, capability="gold"), "capability of entry 3"),
    ("a charge for another call", change_entry("ann", 3, request_id="x"), "entries that charge 120 of tokens"),
    ("a charge taken out", sa.delete(ledger_entry).where(entry_of("chat")), "number of a ledger entry"),
    (
        "the newest entries taken out",
        sa.delete(ledger_entry).where(ledger_entry.c.kind == "grant"),
        "number of the newest entry",
    ),
    # Holds.
    ("a hold that charged less", change(hold, "chat", charged=119), "entries that charge 119 of tokens"),
    ("a charge beyond the hold", change(hold, "chat", amount=119), "charge of request chat"),
    ("a captured hold taken out", sa.delete(hold).where(hold.c.request_id == "chat"), "entries that charge 120"),
    ("a captured hold opened", change(hold, "picture", state="open"), "HeldPicTimes"),
    ("an open hold taken out", sa.delete(hold).where(hold.c.request_id == "running"), "HeldTokens"),
    ("a hold released by hand", change(hold, "running", state="released"), "HeldTokens"),
    ("another unmetered charge", change(hold, "unmetered", charged=3999), "entries that charge 3999"),
    ("another state", change(hold, "running", state="gone"), "state of the hold of request running"),
    ("another outcome", change(hold, "chat", outcome="shrug"), "outcome of request chat"),
    ("a failed call made to pay", change(hold, "chat", outcome="server stopped"), "charge of request chat"),
    ("a report of less", change(hold, "chat", reported=100), "charge of request chat"),
    ("a finished call made free", change(hold, "failed", outcome="finished", reported=9), "charge of request failed"),
    # Losses.
    ("another loss", change(operator_loss, "over", amount=29), "loss of request over"),
    ("a loss taken out", sa.delete(operator_loss), "charge of request over"),
    ("a loss of another account", change(operator_loss, "over", account_id=7), "account of the loss"),
    ("a loss without its hold", change(operator_loss, "over", request_id="x"), "loss of request x"),
    # Records of nobody.
    ("an account taken out", sa.delete(user).where(user.c.UserName == "bob"), "ledger entries of an account that"),
    ("a hold of nobody", change(hold, "running", account_id=5), "holds of an account that does not exist"),
)


class TestDamage:
    async def test_each_kind_is_found(self, database: Database, quotas: Quotas) -> None:
        await keep_books(database, quotas)
        sound = await copy_books(database)
        for name, damage, what in DAMAGE:
            async with database.begin() as connection:
                result = await connection.execute(damage)
                assert result.rowcount, name
            found = await differences(database)
            assert any(what in difference.what for difference in found), f"{name}: {[str(one) for one in found]}"
            await restore_books(database, sound)
        assert await differences(database) == []

    async def test_a_charge_entered_twice(self, database: Database, quotas: Quotas) -> None:
        ann, _ = await keep_books(database, quotas)
        async with database.begin() as connection:
            row = (await connection.execute(sa.select(ledger_entry).where(entry_of("chat")))).mappings().one()
            await connection.execute(sa.insert(ledger_entry).values({**row, "seq": 99}))
        found = await differences(database)
        assert Difference(
            ann.account_id, "entries that charge 120 of tokens for request chat, attempt 1", 1, 2
        ) in found  # fmt: skip

    async def test_an_open_hold_whose_lease_ran_out(self, database: Database, quotas: Quotas) -> None:
        await keep_books(database, quotas)
        async with database.begin() as connection:
            await connection.execute(
                sa.update(hold).where(hold.c.request_id == "running").values(lease_until=hold.c.opened_at - 10_000)
            )
        assert [one.what for one in await differences(database, overdue_seconds=5)] == [
            "open hold of request running, attempt 1: lease until"
        ]
        assert await differences(database, overdue_seconds=3600) == []

    async def test_very_many_are_counted(self, database: Database, quotas: Quotas) -> None:
        ann = await open_account(database, "ann", tokens=100)
        for number in range(40):
            await call(quotas, ann, TOKENS, 1, f"call {number}", reported=1)
        async with database.begin() as connection:
            await connection.execute(sa.update(ledger_entry).values(rule="{}"))
        found = await differences(database)
        assert len(found) == 21
        assert found[-1] == Difference(ann.account_id, "further differences", 0, 61)


class TestRefunds:
    @pytest.fixture
    async def ann(self, database: Database, quotas: Quotas) -> Account:
        ann, _ = await keep_books(database, quotas)
        await quotas.refund(ann, "chat")
        assert await differences(database) == []
        return ann

    async def spoil(self, database: Database, **values: Any) -> list[str]:
        """What is told of another entry like the refund, written behind it with proper numbers, hash and balance."""
        async with database.begin() as connection:
            refund = sa.select(ledger_entry).where(ledger_entry.c.kind == "refund")
            row = dict((await connection.execute(refund)).mappings().one())
            row |= {"seq": row["seq"] + 1, "balance": row["balance"] + row["amount"], **values}
            sealed = {name: value for name, value in row.items() if name != "hash"}
            head = user.c.AccountId == row["account_id"]
            newest = (await connection.execute(sa.select(user.c.LedgerHash).where(head))).scalar_one()
            row["hash"] = seal(newest, **sealed)
            await connection.execute(sa.insert(ledger_entry).values(row))
            changed = {"Tokens": row["balance"], "LedgerSeq": row["seq"], "LedgerHash": row["hash"]}
            await connection.execute(sa.update(user).where(head).values(changed))
        told = [str(one).partition(": ")[2] for one in await differences(database)]
        assert sum("by the audit log" in one for one in told) == 1  # nobody did it
        return [one for one in told if "by the audit log" not in one]

    @pytest.mark.usefixtures("ann")
    async def test_a_second_one_is_found(self, database: Database) -> None:
        told = await self.spoil(database)
        assert told == ["second refund of request chat, attempt 1: expected nothing, found 120"]

    @pytest.mark.usefixtures("ann")
    @pytest.mark.parametrize("call", [("no call", 1), ("chat", 2), ("failed", 1), ("running", 1), ("same", 1)])
    async def test_one_without_its_charge_is_found(self, database: Database, call: tuple[str, int]) -> None:
        told = await self.spoil(database, request_id=call[0], attempt=call[1])
        assert told == [
            f"refund of request {call[0]}, attempt {call[1]}: its charge: expected 120, found nothing"
        ]  # fmt: skip

    @pytest.mark.usefixtures("ann")
    async def test_one_of_more_than_its_charge_is_found(self, database: Database) -> None:
        told = await self.spoil(database, request_id="left")
        assert told == ["refund of request left, attempt 1: expected 60, found 120"]


class TestVouchers:
    async def test_uses_are_redemptions(self, database: Database) -> None:
        ann = await open_account(database, "ann")
        vouchers = Vouchers(database)
        for code, name in (("ONE", "first"), ("TWO", "second")):
            await vouchers.add(code=code, name=name, tokens=5)
        await vouchers.redeem(ann, "ONE")
        assert await differences(database) == []
        async with database.begin() as connection:
            await connection.execute(sa.update(voucher).values(uses=voucher.c.uses + 2))
        assert [str(one) for one in await differences(database)] == [
            "uses of voucher first: expected 1, found 3",
            "uses of voucher second: expected 0, found 2",
        ]


class TestValuesOfAnotherKind:
    """SQLite keeps text in a column of numbers, and bytes in one of text, if somebody writes it."""

    @pytest.mark.parametrize("database_kind", ["sqlite"])
    @pytest.mark.parametrize(
        ("statement", "told"),
        [
            ("UPDATE ledger_entry SET amount = 'many' WHERE request_id = 'chat'", "amount of entry"),
            ("UPDATE ledger_entry SET seq = 'x' WHERE request_id = 'chat'", "seq of entry"),
            ("UPDATE ledger_entry SET balance = 1.5 WHERE request_id = 'chat'", "balance of entry"),
            ("UPDATE ledger_entry SET rule = x'00' WHERE request_id = 'chat'", "rule of entry"),
            ("UPDATE ledger_entry SET amount = 'x', kind = 'refund' WHERE request_id = 'chat'", "amount of entry"),
            ("UPDATE ledger_entry SET account_id = 'x' WHERE request_id = 'chat'", "ledger entries of an account"),
            ("UPDATE hold SET charged = 'x' WHERE request_id = 'chat'", "charged of hold chat/1"),
            ("UPDATE hold SET amount = 'x' WHERE request_id = 'running'", "amount of hold running/1"),
            ("UPDATE hold SET lease_until = 'x' WHERE request_id = 'running'", "lease_until of hold running/1"),
            ("UPDATE operator_loss SET amount = 'x'", "lost of hold over/1"),
            ("UPDATE user SET Tokens = 'x'", "Tokens: expected 720, found x"),
            ("UPDATE user SET VoiceMs = 'x'", "VoiceMs: expected 10000, found x"),
            ("UPDATE user SET HeldTokens = 'x'", "HeldTokens: expected 300, found x"),
            ("UPDATE user SET LedgerSeq = 'x'", "number of the newest entry"),
            ("UPDATE user SET AccountId = 'x' WHERE UserName = 'bob'", "an account that does not exist"),
            ("UPDATE voucher SET uses = 'x'", "uses of voucher first: expected 0, found x"),
        ],
    )
    async def test_are_told(self, database: Database, quotas: Quotas, statement: str, told: str) -> None:
        await keep_books(database, quotas)
        await Vouchers(database).add(code="ONE", name="first", tokens=5)
        async with database.begin() as connection:
            await connection.exec_driver_sql("PRAGMA ignore_check_constraints = ON")
            assert (await connection.exec_driver_sql(statement)).rowcount
            await connection.exec_driver_sql("PRAGMA ignore_check_constraints = OFF")
        found = [str(one) for one in await differences(database)]
        assert any(told in one for one in found), found


class TestBesideWriters:
    async def test_no_false_alarm(self, database: Database, quotas: Quotas, monkeypatch: pytest.MonkeyPatch) -> None:
        """Small pages, so that accounts change between them all the time."""
        monkeypatch.setattr("aiproject.ledger.verify.PAGE_ACCOUNTS", 2)
        accounts = [await open_account(database, f"person {n}", tokens=500, pic_times=50) for n in range(5)]
        stop = asyncio.Event()
        made = 0

        async def spend(number: int) -> None:
            nonlocal made
            draw = random.Random(number)
            while not stop.is_set():
                account = draw.choice(accounts)
                capability = draw.choice(list(Meter))
                request_id = f"{number}:{made}"
                made += 1
                try:
                    await call(quotas, account, capability, 3, request_id, reported=draw.choice([0, 2, 3, 5]))
                except QuotaExhausted:
                    await quotas.grant(account, tokens=20, pic_times=20)

        writers = [asyncio.create_task(spend(number)) for number in range(6)]
        found: list[list[Difference]] = []
        while len(found) < 12 or made <= 20:
            found.append(await differences(database))
        stop.set()
        await asyncio.gather(*writers)
        assert found == [[]] * len(found)
        assert await differences(database) == []
