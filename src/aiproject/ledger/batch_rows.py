"""The rows of one batch: read together, changed in memory, written together.

A batch of any size is a handful of statements. What its commands read is loaded before the first of them is worked out,
and what they change is written after the last, so that a command costs no round trip of its own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from aiproject.adapters.db.runner import Rows, Statement, Steps
from aiproject.adapters.db.schema import hold as holds
from aiproject.adapters.db.schema import ledger_entry, operator_loss
from aiproject.adapters.db.schema import user as users
from aiproject.ledger.account_store import BALANCE, HELD, USED
from aiproject.ledger.chain import seal
from aiproject.ledger.idempotency import IdempotencyKeys
from aiproject.ledger.key_limits import KeyHold, Spending
from aiproject.ledger.model import (
    ClaimKey,
    Command,
    ExtendHold,
    GiveKeyUp,
    Grant,
    HoldState,
    Kind,
    LossReason,
    OpenHold,
    Outcome,
    Refund,
    Settle,
    Stage,
)
from aiproject.ledger.sql import NOW_MS, delete_rows, insert_rows, select_rows, update_rows
from aiproject.ledger.unpaid import Counted, UnpaidUsage

__all__ = [
    "BALANCE_AT",
    "CAPTURED",
    "CHARGE",
    "DISABLED",
    "HELD_AT",
    "OPEN",
    "REFUND",
    "RELEASED",
    "SERVER_KILLED",
    "USED_AT",
    "UUID",
    "AccountRow",
    "BatchRows",
    "HoldRow",
]

AccountRow = list[Any]
"""An account's numbers, in the order of `ACCOUNT_COLUMNS`. A list, since it is what the UPDATE at the end takes."""

# The order is that of the UPDATE at the end, whose key comes last.
ACCOUNT_COLUMNS = (
    *(column.name for column in BALANCE.values()),
    *(column.name for column in HELD.values()),
    *(column.name for column in USED.values()),
    "LedgerSeq",
    "LedgerHash",
    "AccountId",
)
# Behind them stand columns that are only read: they say who may act for the account.
ACCOUNT_READ = (*ACCOUNT_COLUMNS, "Id", "NameKey", "DisabledAt")
UUID, NAME_KEY, DISABLED = range(3)  # in an account's owner

# By the meter's name as it is stored. A `Meter` is a str, so that it finds its entry as well.
BALANCE_AT = {str(meter): ACCOUNT_COLUMNS.index(column.name) for meter, column in BALANCE.items()}
HELD_AT = {str(meter): ACCOUNT_COLUMNS.index(column.name) for meter, column in HELD.items()}
USED_AT = {str(meter): ACCOUNT_COLUMNS.index(column.name) for meter, column in USED.items()}
SEQ, HASH, ACCOUNT_ID = range(len(ACCOUNT_COLUMNS) - 3, len(ACCOUNT_COLUMNS))

HOLD_KEY = ("request_id", "attempt")
HOLD_READ = (
    "account_id", "capability", "amount", "state", "lease_until", "owner", "outcome", "charged", "rule",
    "key_id", "key_day",
)  # fmt: skip
HOLD_OPENED = (
    *HOLD_KEY, "account_id", "capability", "amount", "state", "stage", "owner", "lease_until", "opened_at", "rule",
    "key_id", "key_day",
)  # fmt: skip
HOLD_EXTENDED = ("amount", "key_day")
HOLD_CLOSED = ("state", "stage", "closed_at", "outcome", "reported", "charged", "sid")
ENTRY = tuple(column.name for column in ledger_entry.columns)
LOSS = tuple(column.name for column in operator_loss.columns)

# What goes into rows is exactly str: for a subclass, a StrEnum for example, drivers look through their lists of types.
OPEN, CAPTURED, RELEASED = str(HoldState.OPEN), str(HoldState.CAPTURED), str(HoldState.RELEASED)
HELD_STAGE = str(Stage.HELD)
CHARGE, REFUND = str(Kind.CHARGE), str(Kind.REFUND)
SERVER_KILLED = str(Outcome.SERVER_KILLED)


class HoldRow(Struct):
    """A hold's row, as far as commands look at it.

    Attributes:
        is_new: opened by this very batch.
    """

    account_id: int
    capability: str
    amount: int
    state: str
    lease_until: int
    owner: str
    outcome: str | None
    charged: int | None
    rule: str
    key_id: int | None = None
    key_day: int | None = None
    is_new: bool = False

    @property
    def of_key(self) -> KeyHold | None:
        """What an API key has to do with it."""
        if self.key_id is None:
            return None
        return KeyHold(self.key_id, self.capability, self.key_day or 0, self.amount)


class BatchRows:
    """What one batch read, and what it will write.

    Attributes:
        now: milliseconds since 1970, by the database's clock once something was read.
        accounts: by number.
        owners: uuid, name key and moment of disabling of the accounts, which a batch never changes.
        changed: accounts whose rows are written at the end.
        holds: by request id and attempt.
        entered: by account and request: kind, attempt and balance of the entries, read for refunds only.
    """

    def __init__(self, dialect: str) -> None:
        self.now = int(time.time() * 1000)
        self.accounts: dict[int, AccountRow] = {}
        self.owners: dict[int, Sequence[Any]] = {}
        self.changed: dict[int, AccountRow] = {}
        self.holds: dict[tuple[str, int], HoldRow] = {}
        self.keys = IdempotencyKeys(dialect)
        self.spending = Spending(dialect)
        self.unpaid = UnpaidUsage(dialect)
        self.entered: dict[tuple[int, str], list[tuple[str, int, int | None]]] = {}
        self._dialect = dialect
        # Rows to write. Those by key are written as they stand at the end: MySQL joins each row only once.
        self._opened: list[tuple[Any, ...]] = []
        self._extended: dict[tuple[str, int], tuple[Any, ...]] = {}
        self._closed: dict[tuple[str, int], tuple[Any, ...]] = {}
        self._renewed: dict[tuple[str, int], tuple[Any, ...]] = {}
        self._entries: list[tuple[Any, ...]] = []
        self._losses: list[tuple[Any, ...]] = []
        self._outdated_losses: list[tuple[str, int]] = []

    # -- reading --------------------------------------------------------------------------------------------------

    def load(self, commands: Sequence[Command], may_be_done: bool) -> Steps[None]:
        """Read what the commands look at; account rows first, under a lock.

        Args:
            may_be_done: see `aiproject.ledger.batch.apply`.
        """
        account_ids, request_ids, keys, limits, claims = set(), set(), set(), set(), []
        refunds: set[tuple[int, str]] = set()
        unpaid: list[Settle] = []
        for command in commands:
            if isinstance(command, Settle):
                account_ids.add(command.hold.account_id or 0)
                request_ids.add(command.hold.request_id)
                if command.key is not None:
                    keys.add(command.key)
                if command.unpaid is not None and command.unpaid.seen:
                    unpaid.append(command)
            elif isinstance(command, OpenHold):
                account_ids.add(command.account_id)
                if command.key_id is not None:
                    limits.add((command.key_id, str(command.capability)))
                # A new request id is unique by the primary key, which refuses the batch if it is not. Only after a
                # commit in doubt is it worth a statement to look beforehand.
                if may_be_done:
                    request_ids.add(command.request_id)
            elif isinstance(command, ExtendHold):
                account_ids.add(command.hold.account_id or 0)
                request_ids.add(command.hold.request_id)
            elif isinstance(command, Grant):
                account_ids.add(command.account_id)
            elif isinstance(command, Refund):
                account_ids.add(command.account_id)
                request_ids.add(command.request_id)
                refunds.add((command.account_id, command.request_id))
            elif isinstance(command, ClaimKey):
                keys.add(command.key)
                claims.append(command)
            elif isinstance(command, GiveKeyUp):
                keys.add(command.key)
        yield from self._load_accounts(account_ids)
        if request_ids:
            # Not locked: whoever changes a hold has the lock of its account's row.
            names = [(request_id,) for request_id in sorted(request_ids)]
            rows = yield select_rows(self._dialect, holds, (*HOLD_KEY, *HOLD_READ), ("request_id",), names)
            self.holds = {(row[0], row[1]): HoldRow(*row[2:-1]) for row in rows}
            self._read_clock(rows)
            limits |= {(hold.key_id, hold.capability) for hold in self.holds.values() if hold.key_id is not None}
        yield from self.spending.load(limits)
        yield from self.unpaid.load(unpaid, self.now)
        if refunds:
            yield from self._load_entries(refunds)
        yield from self.keys.load(keys, claims, self.now)

    def _load_accounts(self, account_ids: set[int]) -> Steps[None]:
        if not account_ids:
            # An empty batch asks for a sign of life; one of renewals and claims needs the clock.
            rows = yield Statement(f"SELECT {NOW_MS[self._dialect]}", ())
            self._read_clock(rows)
            return
        # In the order of their numbers, as everybody locks them: two batches never wait for each other in a circle.
        numbers = [(account_id,) for account_id in sorted(account_ids)]
        rows = yield select_rows(self._dialect, users, ACCOUNT_READ, ("AccountId",), numbers, is_locked=True)
        for row in rows:
            self.accounts[row[ACCOUNT_ID]] = list(row[: len(ACCOUNT_COLUMNS)])
            self.owners[row[ACCOUNT_ID]] = row[len(ACCOUNT_COLUMNS) : -1]
        self._read_clock(rows)

    def _load_entries(self, refunds: set[tuple[int, str]]) -> Steps[None]:
        """Read the entries of calls that shall be refunded: rare, so that it may read all entries of their accounts."""
        columns = ("account_id", "request_id")
        rows = yield select_rows(
            self._dialect, ledger_entry, (*columns, "kind", "attempt", "balance"), columns, sorted(refunds)
        )
        for account_id, request_id, kind, attempt, balance, _ in rows:
            self.entered.setdefault((account_id, request_id), []).append((kind, attempt, balance))

    def _read_clock(self, rows: Rows) -> None:
        """Take the time that each row has in its last column, as of when it was locked: after all waiting."""
        if rows:
            self.now = int(rows[-1][-1])

    # -- changes --------------------------------------------------------------------------------------------------

    def insert_hold(self, command: OpenHold, amount: int, key_day: int | None) -> None:
        """Open a hold; what it takes of balances and limits is the caller's to change."""
        key = (command.request_id, command.attempt)
        row = HoldRow(
            command.account_id, str(command.capability), amount, OPEN, self.now + command.lease_ms, command.owner,
            None, None, command.rule, command.key_id, key_day, is_new=True,
        )  # fmt: skip
        self.holds[key] = row
        self._opened.append(
            (
                *key, row.account_id, row.capability, amount, OPEN, HELD_STAGE, row.owner, row.lease_until, self.now,
                row.rule, row.key_id, key_day,
            )
        )  # fmt: skip

    def update_amount(self, key: tuple[str, int], row: HoldRow) -> None:
        """Write the amount of an open hold."""
        self._extended[key] = (row.amount, row.key_day, *key)

    def update_closed(self, key: tuple[str, int], row: HoldRow, command: Settle) -> None:
        """Write the state of a hold that is closed."""
        self._closed[key] = (
            row.state, str(command.stage), self.now, row.outcome, command.reported, row.charged, command.sid, *key,
        )  # fmt: skip

    def update_lease(self, key: tuple[str, int], stage: Stage, lease_until: int) -> None:
        """Write lease and stage of a hold, if it is still open when that is written."""
        self._renewed[key] = (lease_until, str(stage), *key)

    def delete_loss(self, key: tuple[str, int]) -> None:
        """Remove the loss of a call, which an earlier settlement of it noted."""
        self._outdated_losses.append(key)

    def insert_loss(
        self, key: tuple[str, int], row: HoldRow, units: int, reason: LossReason | Outcome, counted: Counted | None
    ) -> None:
        """Note what nobody pays, and how much of it counts against the account's bound."""
        unpaid, day = (counted.units, counted.day) if counted is not None and counted.units else (0, None)
        self._losses.append((*key, row.account_id, row.capability, units, str(reason), self.now, unpaid, day))

    def append_entry(
        self, account: AccountRow, capability: str, amount: int, kind: str, request_id: str, attempt: int, rule: str
    ) -> None:
        """Append an entry to the account's chain, with the balance that it leaves, which must be in the row by now."""
        account_id, seq, balance = account[ACCOUNT_ID], account[SEQ] + 1, account[BALANCE_AT[capability]]
        sealed = seal(
            account[HASH],
            account_id=account_id,
            seq=seq,
            capability=capability,
            amount=amount,
            balance=balance,
            kind=kind,
            request_id=request_id,
            attempt=attempt,
            rule=rule,
            created_at=self.now,
        )
        account[SEQ], account[HASH] = seq, sealed
        self.changed[account_id] = account
        self._entries.append(
            (account_id, seq, capability, amount, balance, kind, request_id, attempt, rule, self.now, sealed)
        )

    # -- writing --------------------------------------------------------------------------------------------------

    def write(self) -> Steps[None]:
        """Write all changes: each kind of them in one statement, accounts last."""
        dialect = self._dialect
        if self._opened:
            yield insert_rows(dialect, holds, HOLD_OPENED, self._opened)
        if self._extended:
            # Before the settlements: of a hold that this batch closes as well, the row must still be open here.
            rows = list(self._extended.values())
            yield update_rows(dialect, holds, HOLD_KEY, HOLD_EXTENDED, rows, where=("state", OPEN))
        if self._closed:
            yield update_rows(dialect, holds, HOLD_KEY, HOLD_CLOSED, list(self._closed.values()))
        if self._renewed:
            # After the settlements, and of open holds only: a lease does not bring a closed hold back to life.
            rows = list(self._renewed.values())
            yield update_rows(dialect, holds, HOLD_KEY, ("lease_until", "stage"), rows, where=("state", OPEN))
        if self._entries:
            yield insert_rows(dialect, ledger_entry, ENTRY, self._entries)
        if self._outdated_losses:
            # Before the new ones: a late settlement may replace the loss of the same call.
            yield delete_rows(dialect, operator_loss, HOLD_KEY, self._outdated_losses)
        if self._losses:
            yield insert_rows(dialect, operator_loss, LOSS, self._losses)
        yield from self.spending.write()
        yield from self.unpaid.write()
        yield from self.keys.write(self.now)
        if self.changed:
            yield update_rows(dialect, users, ("AccountId",), ACCOUNT_COLUMNS[:-1], list(self.changed.values()))
