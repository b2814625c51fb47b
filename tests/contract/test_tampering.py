"""What somebody with write access to the database may do to the ledger behind its back, and that `verify` says so.

Each case is a few statements of SQL against sound books: an edit, or an edit with the chain of hashes written anew, as
somebody would do who has read `aiproject.ledger.chain`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.accounts.api_keys.model import KeyTerms, SpendCap
from aiproject.accounts.api_keys.service import ApiKeys
from aiproject.accounts.core.service import Accounts
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.schema import (
    api_key,
    audit_entry,
    hold,
    ledger_entry,
    operator_loss,
    spend_limit,
    user,
    voucher,
    voucher_redemption,
)
from aiproject.adapters.passwords import PasswordHasher, PasswordService
from aiproject.audit.model import Actor, ActorKind, AuditContext
from aiproject.audit.model import seal as seal_of_act
from aiproject.ledger.chain import seal
from aiproject.ledger.model import Meter, Outcome, Stage
from aiproject.ledger.service import LeaseTimes, Quotas
from aiproject.ledger.verify import verify
from aiproject.vouchers.service import Vouchers
from bookkeeping import open_account, reread

OPERATOR = AuditContext(Actor(ActorKind.COMMAND_LINE, "operator"), "", "act")
FREE = 100_000
"""Tokens that a forger would like to have."""

REST = voucher.alias("rest")
ENTRIES = ledger_entry.alias("entries")
MINE = {"code": "MINE", "name_key": "mine", "voucher_id": 1}
"""What no two vouchers share, of one that nobody made."""

Damage = Callable[[AsyncConnection], Awaitable[None]]


class Case(NamedTuple):
    """A way of tampering, and what must be told of it."""

    damage: Damage
    told: str


# -- the sound ledger --------------------------------------------------------------------------------------------------


async def keep_ledger(database: Database) -> None:
    """Two accounts with a call of each end, a key, a voucher, a grant, a refund and a new uuid."""
    quotas = Quotas(database, LeaseTimes(3600))
    ann = await open_account(database, "ann", tokens=1000)
    await open_account(database, "bob", tokens=500)
    new = await ApiKeys(database).create(ann.account_id, KeyTerms("key"), {Meter.TOKENS: SpendCap(total=700)})
    for request_id, outcome, reported, key_id in (
        ("paid", Outcome.FINISHED, 120, new.key.key_id),
        ("over", Outcome.FINISHED, 230, None),
        ("free", Outcome.UPSTREAM_FAILED, None, None),
        ("back", Outcome.FINISHED, 50, None),
    ):
        held = await quotas.hold(ann, Meter.TOKENS, 200, request_id=request_id, key_id=key_id)
        await quotas.settle(held, outcome, Stage.LAST_FRAME, reported=reported)
    await quotas.hold(ann, Meter.TOKENS, 100, request_id="open")
    await quotas.grant(ann, tokens=40, origin=OPERATOR)
    await quotas.refund(ann, "back", origin=OPERATOR)
    vouchers = Vouchers(database)
    await vouchers.add(code="CODE", tokens=5)
    await vouchers.add(code="REST", name="rest of them", tokens=5)
    await vouchers.redeem(ann, "CODE")
    passwords = PasswordService(PasswordHasher())
    try:
        await Accounts(database, passwords, quotas.grant_opening).rotate_uuid(ann)
    finally:
        await passwords.close()
    await reread(database, "ann")


def sql(*statements: sa.Executable) -> Damage:
    """Statements as somebody types them into a database tool."""

    async def damage(connection: AsyncConnection) -> None:
        for statement in statements:
            assert (await connection.execute(statement)).rowcount

    return damage


def number_of(name: str) -> sa.ScalarSelect[Any]:
    return sa.select(user.c.AccountId).where(user.c.UserName == name).scalar_subquery()


def edit(table: sa.Table, row: sa.ColumnElement[bool], **values: Any) -> sa.Update:
    return sa.update(table).where(row).values(values)


def of_call(request_id: str) -> sa.ColumnElement[bool]:
    return hold.c.request_id == request_id


async def reseal(connection: AsyncConnection, name: str) -> None:
    """Write the chain, the balances and the head of an account anew over whatever stands in its entries."""
    account = (await connection.execute(sa.select(user.c.AccountId).where(user.c.UserName == name))).scalar_one()
    entries = sa.select(ledger_entry).where(ledger_entry.c.account_id == account).order_by(ledger_entry.c.seq)
    rows = [dict(row) for row in (await connection.execute(entries)).mappings()]
    newest, balance = "", 0
    for number, row in enumerate(rows, 1):
        balance += row["amount"]
        row |= {"seq": number, "balance": balance}
        newest = row["hash"] = seal(newest, **{column: value for column, value in row.items() if column != "hash"})
    await connection.execute(sa.delete(ledger_entry).where(ledger_entry.c.account_id == account))
    await connection.execute(sa.insert(ledger_entry), rows)
    head = {"Tokens": balance, "LedgerSeq": len(rows), "LedgerHash": newest}
    await connection.execute(sa.update(user).where(user.c.AccountId == account).values(head))


def resealed(*statements: sa.Executable) -> Damage:
    """The same, with ann's chain of hashes written anew behind it."""

    async def damage(connection: AsyncConnection) -> None:
        await sql(*statements)(connection)
        await reseal(connection, "ann")

    return damage


def forged(kind: str, request_id: str, amount: int = FREE, attempt: int = 0) -> sa.Insert:
    """Another entry of ann's."""
    return sa.insert(ledger_entry).values(
        account_id=number_of("ann"), seq=99, capability="tokens", amount=amount, balance=0, kind=kind,
        request_id=request_id, attempt=attempt, rule="{}", created_at=1_900_000_000_000, hash="",
    )  # fmt: skip


async def swap_uuids(connection: AsyncConnection) -> None:
    rows = (await connection.execute(sa.select(user.c.AccountId, user.c.Id).order_by(user.c.UserName))).all()
    (ann, her_uuid), (bob, his_uuid) = rows
    for account, uuid in ((ann, "-"), (bob, her_uuid), (ann, his_uuid)):
        await connection.execute(edit(user, user.c.AccountId == account, Id=uuid))


async def remove_ann(connection: AsyncConnection) -> None:
    """Every row that names ann's number, the audit log aside."""
    account = (await connection.execute(sa.select(user.c.AccountId).where(user.c.UserName == "ann"))).scalar_one()
    for table in (ledger_entry, hold, operator_loss, voucher_redemption, api_key):
        await connection.execute(sa.delete(table).where(table.c.account_id == account))
    await connection.execute(sa.delete(user).where(user.c.AccountId == account))


def entry(kind: str) -> sa.ColumnElement[bool]:
    return ledger_entry.c.kind == kind


CASES = {
    # Vouchers.
    "redemption and use taken back together": Case(
        sql(sa.delete(voucher_redemption), edit(voucher, voucher.c.code == "CODE", uses=0)),
        "of a voucher: its redemption: expected one, found nothing",
    ),
    "a use without its redemption": Case(
        sql(edit(voucher, voucher.c.code == "REST", uses=1)), "uses of voucher rest of them: expected 0, found 1"
    ),
    "a redemption without its entry": Case(
        sql(
            sa.insert(voucher_redemption).from_select(
                ["code", "account_id", "redeemed_at"],
                sa.select(REST.c.code, number_of("bob"), REST.c.created_at).where(REST.c.code == "REST"),
            ),
            edit(voucher, voucher.c.code == "REST", uses=1),
        ),
        "entries for the redemption of voucher:REST…: expected at least one, found 0",
    ),
    "an entry of a voucher that nobody redeemed": Case(
        resealed(forged("voucher", "voucher:REST")), "of a voucher: its redemption: expected one, found nothing"
    ),
    "a voucher that nobody made": Case(
        sql(
            sa.insert(voucher).from_select(
                voucher.columns.keys(),
                sa.select(
                    *(sa.literal(MINE[each.name]) if each.name in MINE else each for each in REST.columns)
                ).where(REST.c.code == "REST"),
            )
        ),
        "by the audit log: expected 1, found 2",
    ),
    "a voucher worth more": Case(
        sql(edit(voucher, voucher.c.code == "REST", tokens=FREE)), "by the audit log: expected 5, found 100000"
    ),
    "a voucher taken away": Case(
        sql(sa.delete(voucher).where(voucher.c.code == "REST")), "by the audit log: expected 1, found 0"
    ),
    "a redemption worth more than its voucher": Case(
        resealed(edit(ledger_entry, entry("voucher"), amount=FREE)), "of voucher:"
    ),
    "a redemption paid twice": Case(
        resealed(
            sa.insert(ledger_entry).from_select(
                ledger_entry.columns.keys(),
                sa.select(*(sa.literal(98) if each.name == "seq" else each for each in ENTRIES.columns)).where(
                    ENTRIES.c.kind == "voucher"
                ),
            )
        ),
        "expected 5, found 10",
    ),
    # Holds.
    "another rule of a captured hold": Case(
        sql(edit(hold, of_call("paid"), rule='{"rule":1}')), "hold for request paid"
    ),
    "another amount of a captured hold": Case(sql(edit(hold, of_call("paid"), amount=150)), "hold for request paid"),
    "another outcome of a captured hold": Case(
        sql(edit(hold, of_call("paid"), outcome="client gone")), "hold for request paid"
    ),
    "another report of a captured hold": Case(sql(edit(hold, of_call("over"), reported=200)), "request over"),
    "another stage of a captured hold": Case(sql(edit(hold, of_call("paid"), stage="sent")), "request paid"),
    "another amount of an open hold": Case(sql(edit(hold, of_call("open"), amount=50)), "HeldTokens"),
    "another key of a hold": Case(sql(edit(hold, of_call("paid"), key_id=None)), "spent of API key"),
    "an unknown outcome": Case(sql(edit(hold, of_call("free"), outcome="luck")), "outcome of request free"),
    "an unknown state": Case(sql(edit(hold, of_call("free"), state="lost")), "state of the hold of request free"),
    # Keys.
    "a key that has spent less": Case(sql(edit(spend_limit, spend_limit.c.spent > 0, spent=1)), "spent of API key"),
    "a key that may spend more": Case(
        sql(edit(spend_limit, spend_limit.c.total.is_not(None), total=FREE)), "fingerprint of terms and caps of API key"
    ),
    "a key without an end to its day": Case(
        sql(sa.delete(spend_limit).where(spend_limit.c.capability == "pic_times")), "fingerprint of terms and caps"
    ),
    "a key with more calls at once": Case(sql(sa.update(api_key).values(concurrent_calls=9)), "fingerprint of terms"),
    "a key with a secret of one's own": Case(
        sql(sa.update(api_key).values(secret_hash="0" * 64)), "fingerprint of terms and caps of API key"
    ),
    "a key that nobody made": Case(
        sql(
            sa.insert(api_key).values(
                key_id=5, account_id=number_of("bob"), prefix="sk-mine", secret_hash="0" * 64, name="mine",
                created_at=datetime(2099, 1, 1, tzinfo=UTC),
            )
        ),
        "API key 5: its act in the audit log: expected one, found nothing",
    ),
    # Accounts.
    "an account without its row": Case(
        sql(sa.delete(user).where(user.c.UserName == "bob")), "ledger entries of an account that does not exist"
    ),
    "an account without a trace": Case(remove_ann, "account that the audit log names: expected one, found nothing"),
    "swapped uuids": Case(swap_uuids, "fingerprint of the uuid"),
    "a uuid of one's own choice": Case(sql(edit(user, user.c.UserName == "bob", Id="mine")), "fingerprint of the uuid"),
    # Entries, with a chain that fits.
    "an unknown kind": Case(resealed(forged("gift", "act")), "kind of entry"),
    "a grant without an act": Case(resealed(forged("grant", "nobody")), "grant of tokens for reference nobody"),
    "a grant as former releases wrote them": Case(
        resealed(forged("grant", "cli")), "grant of tokens for reference cli"
    ),
    "a grant of more than the act says": Case(
        resealed(edit(ledger_entry, entry("grant"), amount=FREE)),
        "grant of tokens for reference act, by the audit log: expected 40, found 100000",
    ),
    "a grant taken out": Case(
        resealed(sa.delete(ledger_entry).where(entry("grant"))),
        "grant of tokens for reference act, by the audit log: expected 40, found 0",
    ),
    "a second sign-up": Case(resealed(forged("signup", "signup")), "kind of entry"),
    "a late opening": Case(resealed(forged("opening", "migration 0002")), "kind of entry"),
    "a charge that gives": Case(resealed(forged("charge", "paid", attempt=1)), "sign of the charge of entry"),
    "a refund of no charge": Case(resealed(forged("refund", "nothing", attempt=1)), "refund of request nothing"),
    "a refund without an act": Case(
        resealed(forged("refund", "paid", 120, attempt=1)),
        "refund of tokens for request paid, attempt 1, by the audit log: expected 0, found 120",
    ),
    **{
        f"a refund relabelled as {kind}": Case(
            resealed(edit(ledger_entry, entry("refund"), kind=kind)), "refund of tokens for request back, attempt 1"
        )
        for kind in ("grant", "voucher", "signup", "charge", "opening")
    },
    "a refund moved to another call": Case(
        resealed(edit(ledger_entry, entry("refund"), request_id="paid")), "refund of request paid, attempt 1"
    ),
    # The audit log.
    "an act edited": Case(
        sql(edit(audit_entry, audit_entry.c.action == "user.grant", actor="somebody else")), "of the audit log"
    ),
    "an act taken out": Case(
        sql(sa.delete(audit_entry).where(audit_entry.c.action == "user.grant")), "number of an entry of the audit log"
    ),
}  # fmt: skip

KINDS = {
    "a moment of text at which a voucher was made": (
        "UPDATE voucher SET created_at = 'soon' WHERE code = 'REST'",
        "when voucher rest of them was made: expected a moment, found soon",
    ),
    "a moment of a number at which a voucher was made": (
        "UPDATE voucher SET created_at = 5 WHERE code = 'REST'",
        "when voucher rest of them was made: expected a moment, found 5",
    ),
    "a moment of text at which a key was made": ("UPDATE api_key SET created_at = 'soon'", "was created: expected a"),
    "a moment of text at which a key was revoked": ("UPDATE api_key SET revoked_at = 'soon'", "was revoked: expected"),
    "a moment of text at which a key ends": ("UPDATE api_key SET expires_at = 'soon'", "fingerprint of terms and caps"),
    "bytes as the name of a key": ("UPDATE api_key SET name = X'ff'", "fingerprint of terms and caps of API key"),
    "bytes as the rule of a hold": (
        "UPDATE hold SET rule = X'ff' WHERE request_id = 'paid'", "rule of hold paid/1: expected text"
    ),
    "bytes in the audit log": (
        "UPDATE audit_entry SET target = X'ff' WHERE action = 'user.grant'", "target of entry 2 of the audit log"
    ),
    "text as the time of an act": (
        "UPDATE audit_entry SET at = 'x' WHERE action = 'user.grant'", "at of entry 2 of the audit log: expected a"
    ),
    "text as the numbers of acts": (
        "UPDATE audit_entry SET seq = 'x' || seq WHERE seq > 2", "of the audit log: expected a number"
    ),
}  # fmt: skip
"""SQLite keeps any value in any column: an edit, and what must be told of it."""

FACTS = {
    "nested": "[" * 100_000,
    "no object": "[]",
    "a number of many digits": '{"account":1000000000000000000000000000000}',
    "infinity": '{"account":5,"voice_seconds":Infinity}',
    "no number": '{"account":5,"tokens":NaN}',
    "half a character": '{"account":5,"uuid_sha256":"\\ud800"}',
}
"""What nobody but a forger writes into the audit log behind an act."""


async def forge_act(connection: AsyncConnection, after: str) -> None:
    """Append an act to the audit log, with a hash that fits."""
    newest = sa.select(audit_entry).order_by(audit_entry.c.seq.desc()).limit(1)
    row = dict((await connection.execute(newest)).mappings().one())
    previous = row.pop("hash")
    row |= {"seq": row["seq"] + 1, "action": "user.grant", "after": after}
    await connection.execute(sa.insert(audit_entry).values(**row, hash=seal_of_act(previous, **row)))


SAMPLE = (
    "redemption and use taken back together",
    "a grant without an act",
    "an account without a trace",
    "swapped uuids",
    "a redemption worth more than its voucher",
)
"""Cases that run on all databases: one for each thing that is asked of the database."""


async def told(database: Database) -> list[str]:
    return [str(difference) async for difference in verify(database)]


async def tamper(database: Database, damage: Damage) -> None:
    async with database.begin() as connection:
        await damage(connection)


class TestTampering:
    @pytest.mark.parametrize("case", CASES.values(), ids=CASES)
    async def test_is_found(self, small_database: Database, case: Case) -> None:
        await keep_ledger(small_database)
        await tamper(small_database, case.damage)
        found = await told(small_database)
        assert any(case.told in one for one in found), found

    @pytest.mark.parametrize(("statement", "expected"), KINDS.values(), ids=KINDS)
    async def test_a_value_of_another_kind_is_found(
        self, small_database: Database, statement: str, expected: str
    ) -> None:
        await keep_ledger(small_database)
        await tamper(small_database, sql(sa.text(statement)))
        found = await told(small_database)
        assert any(expected in one for one in found), found

    @pytest.mark.parametrize("after", FACTS.values(), ids=FACTS)
    async def test_facts_that_nobody_writes_are_found(self, small_database: Database, after: str) -> None:
        await keep_ledger(small_database)
        await tamper(small_database, lambda connection: forge_act(connection, after))
        (difference,) = await told(small_database)
        assert difference.startswith("facts after the act of entry ")

    async def test_no_difference_names_a_code(self, small_database: Database) -> None:
        await keep_ledger(small_database)
        async with small_database.begin() as connection:
            await connection.execute(sa.update(voucher).values(uses=9))
        found = await told(small_database)
        assert len(found) == 2
        assert not [one for one in found if "CODE" in one or "REST" in one]

    async def test_a_voucher_that_became_worth_more_is_none(self, small_database: Database) -> None:
        ann = await open_account(small_database, "ann")
        vouchers = Vouchers(small_database)
        await vouchers.add(code="CODE", tokens=5, pic_times=1)
        await vouchers.redeem(ann, "CODE")
        await vouchers.modify("CODE", tokens=9, pic_times=0, audience=None, is_available=True)
        assert await told(small_database) == []

    @pytest.mark.parametrize("name", SAMPLE)
    async def test_is_found_on_each_database(self, database: Database, name: str) -> None:
        await keep_ledger(database)
        assert await told(database) == []
        await tamper(database, CASES[name].damage)
        found = await told(database)
        assert any(CASES[name].told in one for one in found), found

    async def test_a_revoked_key_that_lives_again_is_found(self, small_database: Database) -> None:
        ann = await open_account(small_database, "ann")
        keys = ApiKeys(small_database)
        new = await keys.create(ann.account_id, KeyTerms("key"))
        await keys.change(ann.account_id, new.key.prefix, lambda terms: replace(terms, concurrent_calls=2))
        assert await told(small_database) == []
        await keys.revoke(ann.account_id, new.key.prefix)
        assert await told(small_database) == []
        await tamper(small_database, sql(sa.update(api_key).values(revoked_at=None)))
        (difference,) = await told(small_database)
        assert difference.endswith("by the audit log: expected revoked, found not revoked")


class TestFormerReleases:
    """Their acts named no account, their charges seal nothing of a hold: nobody may be accused for that."""

    async def test_their_records_pass(self, small_database: Database) -> None:
        await keep_ledger(small_database)
        async with small_database.begin() as connection:
            await connection.execute(edit(ledger_entry, entry("grant"), request_id="cli"))
            await connection.execute(edit(ledger_entry, entry("charge"), rule='{"rule":1}'))
            await connection.execute(edit(ledger_entry, entry("signup"), rule="{}"))
            await connection.execute(sa.update(hold).values(rule='{"rule":1}'))
            await connection.execute(sa.delete(audit_entry))
            for name in ("ann", "bob"):
                await reseal(connection, name)
        assert await told(small_database) == []

    async def test_so_do_their_vouchers_when_they_are_changed_later(self, small_database: Database) -> None:
        vouchers = Vouchers(small_database)
        for code in ("CHANGED", "DELETED", "LEFT"):
            await vouchers.add(code=code, tokens=5)
        async with small_database.begin() as connection:
            await connection.execute(sa.delete(audit_entry))
        await vouchers.modify("CHANGED", tokens=9, pic_times=1, audience=None, is_available=True)
        await vouchers.delete("DELETED")
        await vouchers.add(code="NEW", tokens=2)
        assert await told(small_database) == []
