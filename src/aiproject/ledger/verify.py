"""The proof that the ledger adds up: `verify` recomputes every balance, chain and hold of a whole database.

It only reads, and may run beside servers: accounts are taken some at a time, each of them with its entries and holds as
they were at one moment. Memory stays the same however large the database is.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Integer, Table, and_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.accounts.api_keys import store as key_store
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.schema import api_key
from aiproject.adapters.db.schema import hold as holds
from aiproject.adapters.db.schema import ledger_entry as entries
from aiproject.adapters.db.schema import operator_loss as losses
from aiproject.adapters.db.schema import user as users
from aiproject.ledger.account_store import BALANCE, HELD, USED
from aiproject.ledger.findings import Difference
from aiproject.ledger.lease_store import database_now
from aiproject.ledger.model import HoldState, Kind
from aiproject.ledger.verify_accounts import AccountAudit, CallSettlement, charge_of_entry, charge_of_hold
from aiproject.ledger.verify_facts import AuditFacts
from aiproject.ledger.verify_key_limits import limits_of_keys
from aiproject.ledger.verify_unpaid import miscounted_unpaid
from aiproject.ledger.verify_vouchers import voucher_differences

__all__ = ["Checked", "Difference", "verify"]

PAGE_ACCOUNTS = 500
PAGE_ENTRIES = 20_000
"""Accounts, and about how many of their entries, are read at one moment: a second or so. An account with more entries
is a page of its own."""

ROWS = 1000
"""Rows in memory."""

BUCKET = 50_000
"""Charges compared at a time where an account's charges and holds do not agree."""

PAGE_SECONDS = 3600.0
"""A limit against a connection that hangs; an account with ten million entries takes minutes."""


@dataclass(slots=True)
class Checked:
    """How many records were looked at."""

    accounts: int = 0
    entries: int = 0
    holds: int = 0
    losses: int = 0

    def add(self, other: Checked) -> None:
        self.accounts += other.accounts
        self.entries += other.entries
        self.holds += other.holds
        self.losses += other.losses


async def verify(
    database: Database, *, overdue_seconds: float = 60.0, checked: Checked | None = None
) -> AsyncIterator[Difference]:
    """Yield whatever in the ledger does not add up; nothing: it is right.

    Args:
        overdue_seconds: how long ago a lease may have run out before its open hold counts as forgotten; the sweeper
            needs about the length of a lease.
        checked: is counted up on the way.

    Raises:
        Unavailable: the database is away.
    """
    checked = Checked() if checked is None else checked
    with closing(AuditFacts()) as facts:
        async for difference in _verify_pages(database, facts, int(overdue_seconds * 1000), checked):
            yield difference
        async with database.snapshot(seconds=PAGE_SECONDS) as connection:
            await facts.read_on(connection)
            others = [*await _losses_without_hold(connection), *await voucher_differences(connection, facts)]
            others += [Difference(*found) async for found in miscounted_unpaid(connection)]
        for difference in (*others, *facts.log_differences()):
            yield difference


async def _verify_pages(
    database: Database, facts: AuditFacts, overdue_ms: int, checked: Checked
) -> AsyncIterator[Difference]:
    after: int | None = None
    while True:
        upto = await _end_of_page(database, after)

        page = await database.read_snapshot(
            partial(_read_page, facts, after, upto, overdue_ms, database.dialect), seconds=PAGE_SECONDS
        )
        checked.add(page.checked)
        for difference in page.differences():
            yield difference
        if upto is None:
            return
        after = upto


async def _read_page(
    facts: AuditFacts, after: int | None, upto: int | None, overdue_ms: int, dialect: str, connection: AsyncConnection
) -> _Page:
    # A new page for each attempt: what one that was cut off has counted must not be counted again.
    page = _Page(facts, after, upto, overdue_ms=overdue_ms)
    await page.read(connection, dialect)
    return page


async def _end_of_page(database: Database, after: int | None) -> int | None:
    """Return the number of the page's last account; ``None``: all that are left are one page."""
    async with database.connect() as connection:
        rows = (
            await connection.execute(
                select(users.c.AccountId, users.c.LedgerSeq)
                .where(*_within(users.c.AccountId, after, None))
                .order_by(users.c.AccountId)
                .limit(PAGE_ACCOUNTS)
            )
        ).all()
    read = 0
    for account_id, newest in rows:
        if not isinstance(account_id, int):
            return None  # somebody wrote text, which SQLite sorts behind all numbers
        read += newest if isinstance(newest, int) else 0
        if read >= PAGE_ENTRIES:
            return account_id
    return int(rows[-1][0]) if len(rows) == PAGE_ACCOUNTS else None


def _within(column: ColumnElement[int], after: int | None, upto: int | None) -> Iterator[ColumnElement[bool]]:
    """The pages' ranges leave nothing out, so that records of accounts that do not exist come up, too."""
    if after is not None:
        yield column > after
    if upto is not None:
        yield column <= upto


# -- a page of accounts ------------------------------------------------------------------------------------------------


class _Page:
    def __init__(self, facts: AuditFacts, after: int | None, upto: int | None, *, overdue_ms: int) -> None:
        self.checked = Checked()
        self._facts = facts
        self._after = after
        self._upto = upto
        self._overdue_ms = overdue_ms
        self._accounts: dict[int, AccountAudit] = {}
        self._keys: list[key_store.KeyState] = []
        self._strays: dict[tuple[int, str], int] = {}
        self._readable: set[tuple[type, ...]] = set()

    def differences(self) -> Iterator[Difference]:
        for account in self._accounts.values():
            yield from account.findings.shown()
        for (account_id, kind), count in self._strays.items():
            yield Difference(account_id, f"{kind} of an account that does not exist", 0, count)
        yield from self._facts.missing_accounts(self._accounts, self._after, self._upto)
        yield from self._facts.unexplained(self._after, self._upto)
        for key in self._keys:
            yield from self._facts.key_differences(key)

    async def read(self, connection: AsyncConnection, dialect: str) -> None:
        await self._facts.read_on(connection)
        now = int((await connection.execute(select(database_now(dialect)))).scalar_one())
        rows = await connection.execute(
            select(
                users.c.AccountId, *BALANCE.values(), *HELD.values(),
                *USED.values(), users.c.LedgerSeq, users.c.LedgerHash, users.c.Id,
                users.c.DeletedAt.is_not(None),
            )
            .where(*_within(users.c.AccountId, self._after, self._upto))
            .order_by(users.c.AccountId)
        )  # fmt: skip
        for account_id, *numbers, newest_seq, newest_hash, uuid, is_deleted in rows:
            numbers_of = iter(numbers)
            self._accounts[account_id] = AccountAudit(
                account_id,
                balances=dict(zip(BALANCE, numbers_of, strict=False)),
                held=dict(zip(HELD, numbers_of, strict=False)),
                used=dict(zip(USED, numbers_of, strict=True)),
                newest_seq=newest_seq,
                newest_hash=newest_hash,
                uuid=uuid,
                is_deleted=bool(is_deleted),
            )
        async for account_id, limit in limits_of_keys(
            connection, *_within(api_key.c.account_id, self._after, self._upto)
        ):
            if account := self._account(account_id, "API keys"):
                account.limit(limit)
        self._keys = await key_store.states(connection, *_within(api_key.c.account_id, self._after, self._upto))
        self.checked.accounts = len(self._accounts)
        async for entry in _entries(connection, *_within(entries.c.account_id, self._after, self._upto)):
            self.checked.entries += 1
            account = self._account(entry.account_id, "ledger entries")
            if account and self._is_readable(entry, account, entries, "entry"):
                account.enter(entry)
                self._facts.enter(entry)
        async for hold in _holds(connection, *_within(holds.c.account_id, self._after, self._upto)):
            self.checked.holds += 1
            self.checked.losses += hold.lost is not None
            account = self._account(hold.account_id, "holds")
            if account and self._is_readable(hold, account, holds, "hold"):
                account.hold(hold, now - self._overdue_ms)
        async for refund in _refunds(connection, *_within(entries.c.account_id, self._after, self._upto)):
            if account := self._accounts.get(refund.account_id):
                account.refund(refund)
        for account in self._accounts.values():
            account.close(self._facts.fingerprint(account.account_id))
            if account.charges != account.captures:
                await _compare_charges(connection, account)

    def _is_readable(self, row: Any, account: AccountAudit, table: Table, name: str) -> bool:
        """Whether each value is of its column's kind: SQLite keeps any in any column, if somebody writes it by hand.

        Args:
            row: of the table; holds have their losses behind them.
        """
        kinds = tuple(map(type, row))
        if kinds in self._readable:
            return True
        key = "/".join(str(value) for value in (row[0], row[1]))  # the primary key of both tables
        columns: list[tuple[str, bool]] = [(each.name, isinstance(each.type, Integer)) for each in table.columns]
        if table is holds:
            columns += [("lost", True), ("loss_reason", False), ("loss_unpaid", True), ("loss_day", True)]
        checks = [
            account.findings.check_kind(f"{column} of {name} {key}", getattr(row, column), is_number=is_number)
            for column, is_number in columns
        ]
        if all(checks):
            self._readable.add(kinds)
        return all(checks)

    def _account(self, account_id: int, kind: str) -> AccountAudit | None:
        account = self._accounts.get(account_id)
        if account is None and ((account_id, kind) in self._strays or len(self._strays) < PAGE_ACCOUNTS):
            self._strays[account_id, kind] = self._strays.get((account_id, kind), 0) + 1
        return account


async def _compare_charges(connection: AsyncConnection, account: AccountAudit) -> None:
    """Find the charges that have no hold, and the captured holds that have no entry: some at a time, in many passes."""
    passes = max(account.charges.count, account.captures.count) // BUCKET + 1
    for number in range(passes):
        entered: Counter[CallSettlement] = Counter()
        captured: Counter[CallSettlement] = Counter()
        async for entry in _entries(
            connection, entries.c.account_id == account.account_id, entries.c.kind == str(Kind.CHARGE)
        ):
            if _is_comparable(entry, entry.amount) and _bucket(entry.request_id, passes) == number:
                entered[charge_of_entry(entry)] += 1
        async for hold in _holds(
            connection,
            holds.c.account_id == account.account_id,
            holds.c.state == str(HoldState.CAPTURED),
            holds.c.charged != 0,
        ):
            if _is_comparable(hold, hold.charged) and _bucket(hold.request_id, passes) == number:
                captured[charge_of_hold(hold)] += 1
        _compare(account, entered, captured)


def _compare(account: AccountAudit, entered: Counter[CallSettlement], captured: Counter[CallSettlement]) -> None:
    """Report charges whose number differs, and those whose hold is not settled as the entry seals it."""
    found, expected = _without_rules(entered), _without_rules(captured)
    for charge in sorted(set(found) | set(expected)):
        of_call = f"for request {charge.request_id}, attempt {charge.attempt}"
        what = f"entries that charge {charge.amount} of {charge.capability} {of_call}"
        account.findings.check(what, expected[charge], found[charge])
    for charge in sorted(set(entered) - set(captured)):
        call = charge._replace(rule="")
        if found[call] == expected[call]:
            stored = next(other.rule for other in captured if other._replace(rule="") == call)
            what = f"rule and settlement of the hold for request {charge.request_id}, attempt {charge.attempt}"
            account.findings.check(what, charge.rule, stored)


def _without_rules(charges: Counter[CallSettlement]) -> Counter[CallSettlement]:
    counted: Counter[CallSettlement] = Counter()
    for charge, count in charges.items():
        counted[charge._replace(rule="")] += count
    return counted


def _is_comparable(row: Any, amount: object) -> bool:
    """Not where a value is of another kind, which is reported already."""
    kinds = (str, int, str, int, str)
    return all(map(isinstance, (row.request_id, row.attempt, row.capability, amount, row.rule), kinds))


def _bucket(request_id: str, count: int) -> int:
    return int.from_bytes(hashlib.sha256(request_id.encode()).digest()[:8], "big") % count


# -- reading -----------------------------------------------------------------------------------------------------------


async def _entries(connection: AsyncConnection, *conditions: ColumnElement[bool]) -> AsyncIterator[Any]:
    """Yield entries in the order of accounts and numbers."""
    statement = select(entries).where(*conditions).order_by(entries.c.account_id, entries.c.seq)
    async with connection.stream(statement, execution_options={"yield_per": ROWS}) as result:
        async for rows in result.partitions():
            for row in rows:
                yield row


async def _holds(connection: AsyncConnection, *conditions: ColumnElement[bool]) -> AsyncIterator[Any]:
    """Yield holds, each with the loss that belongs to it."""
    statement = (
        select(
            holds,
            losses.c.amount.label("lost"),
            losses.c.account_id.label("loss_account_id"),
            losses.c.capability.label("loss_capability"),
            losses.c.reason.label("loss_reason"),
            losses.c.unpaid.label("loss_unpaid"),
            losses.c.unpaid_day.label("loss_day"),
        )
        .select_from(holds.outerjoin(losses, _same_call()))
        .where(*conditions)
    )
    async with connection.stream(statement, execution_options={"yield_per": ROWS}) as result:
        async for rows in result.partitions():
            for row in rows:
                yield row


async def _refunds(connection: AsyncConnection, *conditions: ColumnElement[bool]) -> AsyncIterator[Any]:
    """Yield refunds in the order of their calls, each with what the hold of its call says was charged."""
    call = and_(holds.c.request_id == entries.c.request_id, holds.c.attempt == entries.c.attempt)
    statement = (
        select(
            entries.c.account_id,
            entries.c.request_id,
            entries.c.attempt,
            entries.c.capability,
            entries.c.amount,
            holds.c.account_id.label("hold_account_id"),
            holds.c.capability.label("hold_capability"),
            holds.c.charged,
        )
        .select_from(entries.outerjoin(holds, call))
        .where(entries.c.kind == str(Kind.REFUND), *conditions)
        .order_by(entries.c.account_id, entries.c.request_id, entries.c.attempt, entries.c.seq)
    )
    async with connection.stream(statement, execution_options={"yield_per": ROWS}) as result:
        async for rows in result.partitions():
            for row in rows:
                yield row


async def _losses_without_hold(connection: AsyncConnection) -> list[Difference]:
    rows = await connection.execute(
        select(losses.c.account_id, losses.c.request_id, losses.c.attempt, losses.c.amount)
        .select_from(losses.outerjoin(holds, _same_call()))
        .where(holds.c.request_id.is_(None))
        .order_by(losses.c.request_id, losses.c.attempt)
        .limit(ROWS)
    )
    return [
        Difference(row.account_id, f"loss of request {row.request_id}, attempt {row.attempt}: its hold", "one", None)
        for row in rows
    ]


def _same_call() -> ColumnElement[bool]:
    return and_(holds.c.request_id == losses.c.request_id, holds.c.attempt == losses.c.attempt)
