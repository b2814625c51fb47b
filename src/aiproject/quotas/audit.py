"""The proof that the books add up: `verify` recomputes every balance, chain and hold of a whole database.

It only reads, and may run beside servers: accounts are taken some at a time, each of them with its entries and holds as
they were at one moment. Memory stays the same however large the database is.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Integer, Table, and_, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.adapters.database import Database, retry_transient
from aiproject.adapters.schema import api_key
from aiproject.adapters.schema import hold as holds
from aiproject.adapters.schema import ledger_entry as entries
from aiproject.adapters.schema import operator_loss as losses
from aiproject.adapters.schema import user as users
from aiproject.adapters.schema import voucher as vouchers
from aiproject.adapters.schema import voucher_redemption as redemptions
from aiproject.quotas.chain import seal
from aiproject.quotas.model import Capability, HoldState, Kind, Outcome, Stage
from aiproject.quotas.rules import CHARGES, RULE_VERSION, Basis
from aiproject.quotas.spending_audit import Limit, limits_of_keys
from aiproject.quotas.store import BALANCE, HELD, database_now

__all__ = ["Checked", "Difference", "verify"]

PAGE_ACCOUNTS = 500
PAGE_ENTRIES = 20_000
"""Accounts, and about how many of their entries, are read at one moment: a second or so. An account with more entries
is a page of its own."""

ROWS = 1000
"""Rows in memory."""

BUCKET = 50_000
"""Charges compared at a time where an account's charges and holds do not agree."""

MOST_TOLD = 20
"""Differences told of one account; more are counted."""

CAPABILITIES = frozenset(map(str, Capability))
OUTCOMES = frozenset(map(str, Outcome))
STAGES = frozenset(map(str, Stage))

PAGE_SECONDS = 3600.0
"""A limit against a connection that hangs; an account with ten million entries takes minutes."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as it must be.

    Attributes:
        account_id: whose books; of an account that may not exist. ``None``: it is about a voucher.
        what: the number or the record.
        expected: recomputed from the other records.
        found: as it is stored.
    """

    account_id: int | None
    what: str
    expected: int | str | None
    found: int | str | None

    def __str__(self) -> str:
        whose = "" if self.account_id is None else f"account {self.account_id}: "
        return f"{whose}{self.what}: expected {_told(self.expected)}, found {_told(self.found)}"


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
    """Yield whatever in the books does not add up; nothing: they are right.

    Args:
        overdue_seconds: how long ago a lease may have run out before its open hold counts as forgotten; the sweeper
            needs about the length of a lease.
        checked: is counted up on the way.

    Raises:
        Unavailable: the database is away.
    """
    checked = Checked() if checked is None else checked
    after: int | None = None
    while True:
        upto = await _end_of_page(database, after)

        async def once(after: int | None = after, upto: int | None = upto) -> _Page:
            page = _Page(after, upto, overdue_ms=int(overdue_seconds * 1000))
            async with database.snapshot(seconds=PAGE_SECONDS) as connection:
                await page.read(connection, database.dialect)
            return page

        page = await retry_transient(once)
        checked.add(page.checked)
        for difference in page.differences():
            yield difference
        if upto is None:
            break
        after = upto
    async with database.snapshot(seconds=PAGE_SECONDS) as connection:
        others = [*await _losses_without_hold(connection), *await _miscounted_vouchers(connection)]
    for difference in others:
        yield difference


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
    def __init__(self, after: int | None, upto: int | None, *, overdue_ms: int) -> None:
        self.checked = Checked()
        self._after = after
        self._upto = upto
        self._overdue_ms = overdue_ms
        self._accounts: dict[int, _Account] = {}
        self._strays: dict[tuple[int, str], int] = {}
        self._readable: set[tuple[type, ...]] = set()

    def differences(self) -> Iterator[Difference]:
        for account in self._accounts.values():
            yield from account.findings.told()
        for (account_id, kind), count in self._strays.items():
            yield Difference(account_id, f"{kind} of an account that does not exist", 0, count)

    async def read(self, connection: AsyncConnection, dialect: str) -> None:
        now = int((await connection.execute(select(database_now(dialect)))).scalar_one())
        rows = await connection.execute(
            select(
                users.c.AccountId, *BALANCE.values(), *HELD.values(),
                users.c.VoiceUsedMs, users.c.LedgerSeq, users.c.LedgerHash,
            )
            .where(*_within(users.c.AccountId, self._after, self._upto))
            .order_by(users.c.AccountId)
        )  # fmt: skip
        for row in rows:
            self._accounts[row[0]] = _Account(
                row[0],
                balances=dict(zip(BALANCE, row[1:4], strict=True)),
                held=dict(zip(HELD, row[4:7], strict=True)),
                voice_used_ms=row[7],
                newest_seq=row[8],
                newest_hash=row[9],
            )
        async for account_id, limit in limits_of_keys(
            connection, *_within(api_key.c.account_id, self._after, self._upto)
        ):
            if account := self._account(account_id, "API keys"):
                account.limit(limit)
        self.checked.accounts = len(self._accounts)
        async for entry in _entries(connection, *_within(entries.c.account_id, self._after, self._upto)):
            self.checked.entries += 1
            account = self._account(entry.account_id, "ledger entries")
            if account and self._is_readable(entry, account, entries, "entry"):
                account.enter(entry)
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
            account.close()
            if account.charges != account.captures:
                await _compare_charges(connection, account)

    def _is_readable(self, row: Any, account: _Account, table: Table, name: str) -> bool:
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
            columns.append(("lost", True))
        checks = [
            account.findings.check_kind(f"{column} of {name} {key}", getattr(row, column), is_number=is_number)
            for column, is_number in columns
        ]
        if all(checks):
            self._readable.add(kinds)
        return all(checks)

    def _account(self, account_id: int, kind: str) -> _Account | None:
        account = self._accounts.get(account_id)
        if account is None and ((account_id, kind) in self._strays or len(self._strays) < PAGE_ACCOUNTS):
            self._strays[account_id, kind] = self._strays.get((account_id, kind), 0) + 1
        return account


class _Charge(NamedTuple):
    """What an entry and its hold must agree on."""

    request_id: str
    attempt: int
    capability: str
    amount: int


@dataclass(slots=True)
class _Charges:
    """Many charges, in constant memory: equal if they are the same in any order, each as often."""

    count: int = 0
    sum: int = 0

    def add(self, charge: _Charge) -> None:
        self.count += 1
        digest = hashlib.sha256("\0".join(map(str, charge)).encode()).digest()
        self.sum = (self.sum + int.from_bytes(digest, "big")) % (1 << 256)


class _Findings:
    """The differences of one account; of very many, the first ones and their number."""

    def __init__(self, account_id: int) -> None:
        self._account_id = account_id
        self._differences: list[Difference] = []
        self._untold = 0

    def check(self, what: str, expected: int | str | None, found: int | str | None) -> bool:
        if expected == found:
            return True
        if len(self._differences) < MOST_TOLD:
            self._differences.append(Difference(self._account_id, what, expected, found))
        else:
            self._untold += 1
        return False

    def check_known(self, what: str, found: str | None, known: frozenset[str]) -> bool:
        return found in known or self.check(what, "a known word", found)

    def check_kind(self, what: str, found: object, *, is_number: bool) -> bool:
        if found is None or isinstance(found, int if is_number else str):
            return True
        return self.check(what, "a number" if is_number else "text", str(found)[:100])

    def told(self) -> Iterator[Difference]:
        yield from self._differences
        if self._untold:
            yield Difference(self._account_id, "further differences", 0, self._untold)


class _Account:
    """An account's row, and what its entries and holds make of it."""

    def __init__(
        self,
        account_id: int,
        *,
        balances: Mapping[Capability, int | None],
        held: Mapping[Capability, int],
        voice_used_ms: int,
        newest_seq: int,
        newest_hash: str,
    ) -> None:
        self.account_id = account_id
        self.findings = _Findings(account_id)
        self.charges = _Charges()
        self.captures = _Charges()
        self._balances = balances
        self._held = held
        self._voice_used_ms = voice_used_ms
        self._newest_seq = newest_seq
        self._newest_hash = newest_hash
        # From the entries.
        self._seq = 0
        self._hash = ""
        self._sums: Counter[str] = Counter()
        self._running: dict[str, int] = {}
        self._voice_charged = 0
        self._voice_metered_at: int | None = None
        self._refunded: tuple[str, int] | None = None  # the call of the last refund
        # From the holds.
        self._open: Counter[str] = Counter()
        self._open_unmetered = 0
        self._limits: dict[tuple[int, str], Limit] = {}

    def limit(self, limit: Limit) -> None:
        """Take in what one of the account's API keys may spend and has spent; before the holds."""
        self._limits[limit.key_id, limit.capability] = limit

    def enter(self, row: Any) -> None:
        """Take in the next entry, in the order of their numbers."""
        check = self.findings.check
        check("number of a ledger entry", self._seq + 1, row.seq)
        what = f"of entry {row.seq}"
        sealed = seal(
            self._hash,
            account_id=row.account_id,
            seq=row.seq,
            capability=row.capability,
            amount=row.amount,
            balance=row.balance,
            kind=row.kind,
            request_id=row.request_id,
            attempt=row.attempt,
            rule=row.rule,
            created_at=row.created_at,
        )
        check(f"hash {what}", sealed, row.hash)
        # Go on from what is stored: one edit is one difference.
        self._seq, self._hash = row.seq, row.hash
        if not self.findings.check_known(f"capability {what}", row.capability, CAPABILITIES):
            return
        is_voice = row.capability == Capability.VOICE_SECONDS
        if row.balance is None:
            # Unmetered: dictation until its first grant.
            if not is_voice or row.capability in self._running:
                check(f"balance {what}", self._running.get(row.capability, 0) + row.amount, None)
        else:
            if is_voice and self._voice_metered_at is None:
                self._voice_metered_at = row.created_at
            self._sums[row.capability] += row.amount
            check(f"balance {what}", self._running.get(row.capability, 0) + row.amount, row.balance)
            self._running[row.capability] = row.balance
            if row.balance < 0:
                check(f"balance {what}", "0 or more", row.balance)
        if row.kind == Kind.CHARGE:
            self.charges.add(_charge_of_entry(row))
        if is_voice and (row.kind == Kind.CHARGE or (row.kind == Kind.OPENING and row.balance is None)):
            self._voice_charged -= row.amount

    def refund(self, row: Any) -> None:
        """Take in a refund beside the hold of its call, in the order of the calls."""
        call = (row.request_id, row.attempt)
        what = f"refund of request {row.request_id}, attempt {row.attempt}"
        if call == self._refunded:
            self.findings.check(f"second {what}", None, row.amount)
        elif row.hold_account_id != row.account_id or row.hold_capability != row.capability or not row.charged:
            self.findings.check(f"{what}: its charge", row.amount, None)
        else:
            self.findings.check(what, row.charged, row.amount)
        self._refunded = call

    def hold(self, row: Any, overdue_before: int) -> None:
        """Take in a hold and its loss, in any order; ``overdue_before``: a lease that ran out earlier is over."""
        check = self.findings.check
        what = f"of request {row.request_id}, attempt {row.attempt}"
        if not self.findings.check_known(f"capability {what}", row.capability, CAPABILITIES):
            return
        if row.amount < 0:
            check(f"hold {what}", "0 or more", row.amount)
        if row.state != HoldState.OPEN:
            self.findings.check_known(f"outcome {what}", row.outcome, OUTCOMES)
            self.findings.check_known(f"stage {what}", row.stage, STAGES)
        charged, lost = row.charged or 0, row.lost or 0
        if row.key_id is not None:
            self._hold_of_key(row, what)
        match row.state:
            case HoldState.OPEN:
                self._open[row.capability] += row.amount
                if row.capability == Capability.VOICE_SECONDS and (
                    self._voice_metered_at is None or row.opened_at <= self._voice_metered_at
                ):
                    # It was held when there was no balance that it could have exceeded.
                    self._open_unmetered += row.amount
                if row.lease_until < overdue_before:
                    check(f"open hold {what}: lease until", f"{overdue_before} or later", row.lease_until)
                check(f"charge of the open hold {what}", 0, charged)
            case HoldState.CAPTURED:
                if charged:
                    self.captures.add(_charge_of_hold(row))
                if not 0 <= charged <= row.amount:
                    check(f"charge {what}", f"0 to {row.amount}", charged)
            case HoldState.RELEASED:
                check(f"charge of the released hold {what}", 0, charged)
            case _:
                self.findings.check_known(f"state of the hold {what}", row.state, frozenset())
        if row.lost is None:
            check(f"charge {what}", charged if (owed := _owed(row)) is None else owed, charged)
            return
        check(f"account of the loss {what}", row.account_id, row.loss_account_id)
        check(f"capability of the loss {what}", row.capability, row.loss_capability)
        if lost <= 0:
            check(f"loss {what}", "more than 0", lost)
        if row.state != HoldState.CAPTURED:
            check(f"loss of the {row.state} hold {what}", 0, lost)
        elif (owed := _owed(row)) is not None:
            check(f"loss {what}", owed - charged, lost)

    def _hold_of_key(self, row: Any, what: str) -> None:
        limit = self._limits.get((row.key_id, row.capability))
        if limit is not None:
            limit.count(row)
        elif row.state == HoldState.OPEN:
            # A key that was revoked is forgotten one day, but not while its calls run.
            self.findings.check(f"API key of the open hold {what}", "one of the account", row.key_id)

    def close(self) -> None:
        """Compare the row with what its entries and holds came to."""
        check = self.findings.check
        check("number of the newest entry", self._seq, self._newest_seq)
        check("hash of the newest entry", self._hash, self._newest_hash)
        for capability, balance in self._balances.items():
            column, held = BALANCE[capability].name, HELD[capability].name
            if balance is None:
                if capability in self._running:
                    check(column, self._sums[capability], None)
            else:
                check(column, self._sums[capability], balance)
                if isinstance(balance, int) and balance < 0:
                    check(column, "0 or more", balance)
            check(held, self._open[capability], self._held[capability])
            if not (isinstance(balance, int) and isinstance(self._held[capability], int)):
                continue  # unmetered, or told above
            unmetered = self._open_unmetered if capability is Capability.VOICE_SECONDS else 0
            if self._held[capability] - unmetered > balance:
                check(held, f"at most {balance}", self._held[capability])
        check(users.c.VoiceUsedMs.name, self._voice_charged, self._voice_used_ms)
        for limit in self._limits.values():
            limit.close(check)


def _owed(row: Any) -> int | None:
    """Return what the written table says a closed hold's call consumed; ``None``: that depends on an estimate, which
    is not kept, or on the table of another release."""
    if row.state == HoldState.OPEN:
        return 0
    try:
        if json.loads(row.rule).get("rule") != RULE_VERSION:
            return None
        basis = CHARGES[Outcome(row.outcome)][Stage(row.stage)]
    except (AttributeError, ValueError):
        return None
    if basis is Basis.NOTHING:
        return 0
    return int(row.reported) if basis is Basis.REPORTED and row.reported is not None else None


def _charge_of_entry(row: Any) -> _Charge:
    return _Charge(row.request_id, row.attempt, row.capability, -row.amount)


def _charge_of_hold(row: Any) -> _Charge:
    return _Charge(row.request_id, row.attempt, row.capability, row.charged)


async def _compare_charges(connection: AsyncConnection, account: _Account) -> None:
    """Find the charges that have no hold, and the captured holds that have no entry: some at a time, in many passes."""
    passes = max(account.charges.count, account.captures.count) // BUCKET + 1
    for number in range(passes):
        entered: Counter[_Charge] = Counter()
        captured: Counter[_Charge] = Counter()
        async for entry in _entries(
            connection, entries.c.account_id == account.account_id, entries.c.kind == str(Kind.CHARGE)
        ):
            if _is_comparable(entry, entry.amount) and _bucket(entry.request_id, passes) == number:
                entered[_charge_of_entry(entry)] += 1
        async for hold in _holds(
            connection,
            holds.c.account_id == account.account_id,
            holds.c.state == str(HoldState.CAPTURED),
            holds.c.charged != 0,
        ):
            if _is_comparable(hold, hold.charged) and _bucket(hold.request_id, passes) == number:
                captured[_charge_of_hold(hold)] += 1
        for charge in sorted(set(entered) | set(captured)):
            account.findings.check(
                f"entries that charge {charge.amount} of {charge.capability} "
                f"for request {charge.request_id}, attempt {charge.attempt}",
                captured[charge],
                entered[charge],
            )


def _is_comparable(row: Any, amount: object) -> bool:
    """Not, where a value is of another kind, which is told already."""
    kinds = (str, int, str, int)
    return all(map(isinstance, (row.request_id, row.attempt, row.capability, amount), kinds))


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


async def _miscounted_vouchers(connection: AsyncConnection) -> list[Difference]:
    # A code that was deleted keeps its redemptions; a new voucher of that code counts from its own beginning.
    is_its_own = and_(redemptions.c.code == vouchers.c.code, redemptions.c.redeemed_at >= vouchers.c.created_at)
    redeemed = func.count(redemptions.c.account_id)
    rows = await connection.execute(
        select(vouchers.c.code, vouchers.c.uses, redeemed)
        .select_from(vouchers.outerjoin(redemptions, is_its_own))
        .group_by(vouchers.c.code, vouchers.c.uses)
        .having(vouchers.c.uses != redeemed)
        .order_by(vouchers.c.code)
        .limit(ROWS)
    )
    return [Difference(None, f"uses of voucher {code}", redeemed, uses) for code, uses, redeemed in rows]


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


def _told(value: int | str | None) -> str:
    return "nothing" if value is None else str(value)
