"""Balances, holds and ledger entries: what a batch of orders reads and writes, worked out in between.

`steps` tells a batch as statements and does no I/O itself; `apply` takes it inside a transaction of the caller's.

Order of locks: account rows first, in the order of their numbers, then everything else. Whoever changes a hold, counts
what an API key spends or appends an entry holds the account's row, so that two batches meet there and nowhere else. (A
renewal changes no more than the lease and the stage of holds that are its own.)
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import ColumnElement, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.accounts.core.fingerprints import uuid_fingerprint
from aiproject.adapters.db.errors import PRIMARY, UniqueViolation
from aiproject.adapters.db.runner import Rows, Statement, Steps, take_steps
from aiproject.adapters.db.schema import hold as holds
from aiproject.adapters.db.schema import ledger_entry, operator_loss
from aiproject.adapters.db.schema import user as users
from aiproject.codes import Detail
from aiproject.errors import AccountUnknown, AiProjectError, InvalidInput, QuotaBusy, QuotaExhausted, Unavailable
from aiproject.ledger.account_store import BALANCE, HELD, USED
from aiproject.ledger.chain import seal
from aiproject.ledger.idempotency import IdempotencyKeys
from aiproject.ledger.key_limits import KeyHold, Spending
from aiproject.ledger.model import (
    MAX_UNITS,
    ClaimKey,
    ClaimResult,
    ExtendHold,
    GiveKeyUp,
    Grant,
    Hold,
    HoldState,
    Key,
    Kind,
    LossReason,
    Meter,
    OpenHold,
    Outcome,
    Refund,
    Refunded,
    Renew,
    Settle,
    Settled,
    Stage,
    Unpaid,
    snapshot,
)
from aiproject.ledger.settled import settled_rule
from aiproject.ledger.sql import NOW_MS, delete_rows, insert_rows, select_rows, update_rows
from aiproject.ledger.unpaid import Counted, UnpaidUsage

__all__ = ["Expired", "Order", "Result", "apply", "database_now", "expired_holds", "steps"]

Order = OpenHold | ExtendHold | Settle | Grant | Refund | Renew | ClaimKey | GiveKeyUp
Result = Hold | Settled | Refunded | ClaimResult | int | AiProjectError | None

# An account's row is kept as a list in this order, which is that of the UPDATE at the end: the key is last.
ACCOUNT_COLUMNS = (
    *(column.name for column in BALANCE.values()),
    *(column.name for column in HELD.values()),
    *(column.name for column in USED.values()),
    "LedgerSeq",
    "LedgerHash",
    "AccountId",
)
# Behind it stands what is only looked at: who may act for the account.
ACCOUNT_READ = (*ACCOUNT_COLUMNS, "Id", "NameKey", "DisabledAt")
BALANCE_AT = {str(capability): ACCOUNT_COLUMNS.index(column.name) for capability, column in BALANCE.items()}
HELD_AT = {str(capability): ACCOUNT_COLUMNS.index(column.name) for capability, column in HELD.items()}
USED_AT = {str(capability): ACCOUNT_COLUMNS.index(column.name) for capability, column in USED.items()}
SEQ, HASH, ACCOUNT_ID = range(len(ACCOUNT_COLUMNS) - 3, len(ACCOUNT_COLUMNS))
DISABLED = 2  # among an account's owners

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

# What goes into rows is exactly str, which drivers know at first sight.
OPEN, CAPTURED, RELEASED = str(HoldState.OPEN), str(HoldState.CAPTURED), str(HoldState.RELEASED)
HELD_STAGE = str(Stage.HELD)
CHARGE, REFUND = str(Kind.CHARGE), str(Kind.REFUND)
SERVER_KILLED = str(Outcome.SERVER_KILLED)


def database_now(dialect: str) -> ColumnElement[int]:
    """Return the database's clock as an SQL expression, in milliseconds since 1970."""
    return literal_column(NOW_MS[dialect])


async def apply(
    connection: AsyncConnection, orders: Sequence[Order], *, dialect: str, may_be_done: bool = False
) -> list[Result]:
    """Work off ``orders`` in their order; return a result for each, an error of the tree where one is refused.

    Args:
        connection: in a transaction, which the caller commits; nothing is done until then.
        may_be_done: an earlier commit of the same orders is in doubt, so look whether their holds exist already.
    """
    return await take_steps(connection, steps(orders, dialect=dialect, may_be_done=may_be_done))


def steps(orders: Sequence[Order], *, dialect: str, may_be_done: bool = False) -> Steps[list[Result]]:
    """The same as a transaction of `aiproject.adapters.db.runner`. Without orders it asks for a sign of life."""
    return _Batch(dialect).work(orders, may_be_done)


class _Hold(Struct):
    """A hold's row, as far as it matters."""

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


class _Batch:
    """One batch, worked out in memory between a few statements that read and a few that write."""

    def __init__(self, dialect: str) -> None:
        self._dialect = dialect
        self._now = int(time.time() * 1000)
        self._accounts: dict[int, list[Any]] = {}
        self._owners: dict[int, Sequence[Any]] = {}
        self._changed: dict[int, list[Any]] = {}
        self._holds: dict[tuple[str, int], _Hold] = {}
        self._keys = IdempotencyKeys(dialect)
        self._spending = Spending(dialect)
        self._unpaid = UnpaidUsage(dialect)
        # By account and request: kind, attempt and balance of the entries, for refunds only.
        self._booked: dict[tuple[int, str], list[tuple[str, int, int | None]]] = {}
        # Rows to write.
        self._opened: list[tuple[Any, ...]] = []
        self._extended: dict[tuple[str, int], tuple[Any, ...]] = {}
        self._closed: dict[tuple[str, int], tuple[Any, ...]] = {}
        self._renewed: dict[tuple[str, int], tuple[Any, ...]] = {}
        self._entries: list[tuple[Any, ...]] = []
        self._losses: list[tuple[Any, ...]] = []
        self._outdated_losses: list[tuple[str, int]] = []

    def work(self, orders: Sequence[Order], may_be_done: bool) -> Steps[list[Result]]:
        yield from self._load(orders, may_be_done)
        results = [self._do(order) for order in orders]
        yield from self._write()
        return results

    # -- reading --------------------------------------------------------------------------------------------------

    def _load(self, orders: Sequence[Order], may_be_done: bool) -> Steps[None]:
        account_ids, request_ids, keys, limits, claims = set(), set(), set(), set(), []
        refunds: set[tuple[int, str]] = set()
        unpaid: list[Settle] = []
        for order in orders:
            if isinstance(order, Settle):
                account_ids.add(order.hold.account_id or 0)
                request_ids.add(order.hold.request_id)
                if order.key is not None:
                    keys.add(order.key)
                if order.unpaid is not None and order.unpaid.seen:
                    unpaid.append(order)
            elif isinstance(order, OpenHold):
                account_ids.add(order.account_id)
                if order.key_id is not None:
                    limits.add((order.key_id, str(order.capability)))
                if may_be_done:
                    request_ids.add(order.request_id)
            elif isinstance(order, ExtendHold):
                account_ids.add(order.hold.account_id or 0)
                request_ids.add(order.hold.request_id)
            elif isinstance(order, Grant):
                account_ids.add(order.account_id)
            elif isinstance(order, Refund):
                account_ids.add(order.account_id)
                request_ids.add(order.request_id)
                refunds.add((order.account_id, order.request_id))
            elif isinstance(order, ClaimKey):
                keys.add(order.key)
                claims.append(order)
            elif isinstance(order, GiveKeyUp):
                keys.add(order.key)
        if account_ids:
            numbers = [(account_id,) for account_id in sorted(account_ids)]
            rows = yield select_rows(self._dialect, users, ACCOUNT_READ, ("AccountId",), numbers, is_locked=True)
            for row in rows:
                self._accounts[row[ACCOUNT_ID]] = list(row[: len(ACCOUNT_COLUMNS)])
                self._owners[row[ACCOUNT_ID]] = row[len(ACCOUNT_COLUMNS) : -1]
        else:
            rows = yield Statement(f"SELECT {NOW_MS[self._dialect]}", ())
        self._look_at_clock(rows)
        if request_ids:
            names = [(request_id,) for request_id in sorted(request_ids)]
            rows = yield select_rows(self._dialect, holds, (*HOLD_KEY, *HOLD_READ), ("request_id",), names)
            self._holds = {(row[0], row[1]): _Hold(*row[2:-1]) for row in rows}
            self._look_at_clock(rows)
            limits |= {(hold.key_id, hold.capability) for hold in self._holds.values() if hold.key_id is not None}
        yield from self._spending.load(limits)
        yield from self._unpaid.load(unpaid, self._now)
        if refunds:  # rare, so that they may look through all entries of their accounts
            columns = ("account_id", "request_id")
            rows = yield select_rows(
                self._dialect, ledger_entry, (*columns, "kind", "attempt", "balance"), columns, sorted(refunds)
            )
            for account_id, request_id, kind, attempt, balance, _ in rows:
                self._booked.setdefault((account_id, request_id), []).append((kind, attempt, balance))
        yield from self._keys.load(keys, claims, self._now)

    def _look_at_clock(self, rows: Rows) -> None:
        if rows:
            self._now = int(rows[-1][-1])

    # -- orders ---------------------------------------------------------------------------------------------------

    def _do(self, order: Order) -> Result:
        match order:
            case OpenHold():
                return self._open(order)
            case Settle():
                return self._settle(order)
            case ExtendHold():
                return self._extend(order)
            case Grant():
                return self._grant(order)
            case Refund():
                return self._refund(order)
            case ClaimKey():
                return self._keys.claim(order, self._now)
            case GiveKeyUp():
                self._keys.give_up(order)
                return None
            case Renew():
                self._renew(order)
                return None

    def _renew(self, order: Renew) -> None:
        lease_until = self._now + order.lease_ms
        for key, stage in order.stages.items():
            self._renewed[key] = (lease_until, str(stage), *key)
        for idempotency_key, request_id in order.keys.items():
            self._keys.renew(idempotency_key, request_id, lease_until)

    def _open(self, order: OpenHold) -> Result:
        key = (order.request_id, order.attempt)
        known = self._holds.get(key)
        if known is not None:
            return self._recognise(order, known)
        batcher = self._accounts.get(order.account_id)
        if batcher is None or not self._is_still(order):
            return AccountUnknown()
        capability = order.capability
        held_at = HELD_AT[capability]
        amount = order.want
        balance = batcher[BALANCE_AT[capability]]
        if balance is not None:
            available = balance - batcher[held_at]
            if available < order.least:
                # Enough, only held by others: that is worth waiting for.
                return QuotaBusy(capability) if balance >= order.least else QuotaExhausted(capability)
            amount = min(amount, available)
        key_day = None
        if order.key_id is not None:
            found = self._spending.open(order, order.key_id, amount, self._now)
            if isinstance(found, AiProjectError):
                return found
            amount, key_day = found.amount, found.day
        batcher[held_at] += amount
        self._changed[order.account_id] = batcher
        row = _Hold(
            order.account_id, str(capability), amount, OPEN, self._now + order.lease_ms, order.owner, None, None,
            order.rule, order.key_id, key_day, is_new=True,
        )  # fmt: skip
        self._holds[key] = row
        self._opened.append(
            (
                *key, row.account_id, row.capability, amount, OPEN, HELD_STAGE, row.owner, row.lease_until, self._now,
                row.rule, row.key_id, key_day,
            )
        )  # fmt: skip
        return Hold(order.account_id, capability, amount, order.request_id, order.attempt)

    def _is_still(self, order: OpenHold) -> bool:
        """Whether the caller's credential, remembered from a moment ago, is still good."""
        if order.pair is None:
            return True
        uuid, name_key, disabled_at = self._owners[order.account_id]
        is_right = hmac.compare_digest(str(uuid).encode(), order.pair[0].encode("utf-8", "replace"))
        return is_right and name_key == order.pair[1] and disabled_at is None

    def _recognise(self, order: OpenHold, known: _Hold) -> Result:
        """There is such a hold: of an earlier try of this order, whose commit was in doubt, or of another call."""
        if known.is_new or known.owner != order.owner or known.account_id != order.account_id:
            return UniqueViolation(PRIMARY)
        if known.state != OPEN:
            return Unavailable("a hold that was committed late is closed already", retry_after=1)
        return Hold(order.account_id, order.capability, known.amount, order.request_id, order.attempt)

    def _extend(self, order: ExtendHold) -> Result:
        hold = order.hold
        key = (hold.request_id, hold.attempt)
        row = self._holds.get(key)
        account = None if row is None else self._accounts.get(row.account_id)
        if row is None or account is None or row.state != OPEN:
            return hold  # the sweeper took its process for dead, or the account is gone: the call ends where it is
        if row.amount <= hold.amount and self._owners[row.account_id][DISABLED] is None:
            self._raise_hold(key, row, account, order)
        # Beyond what the caller knew: extended just now, or by a try of this command whose commit was in doubt.
        return replace(hold, amount=row.amount)

    def _raise_hold(self, key: tuple[str, int], row: _Hold, account: list[Any], order: ExtendHold) -> None:
        """Take as much of the extension as the account has free and the API key may still spend."""
        balance, held_at = account[BALANCE_AT[row.capability]], HELD_AT[row.capability]
        free = MAX_UNITS if balance is None else balance - account[held_at]
        # A hold that was opened while the account was unmetered may be larger than the balance that came later.
        units = max(0, min(order.units, free, MAX_UNITS - row.amount))
        if units and (of_key := row.of_key) is not None:
            extended = self._spending.extend(of_key, units, self._now, order.zone)
            units, row.key_day = extended.amount - row.amount, extended.day
        if not units:
            return
        row.amount += units
        account[held_at] += units
        self._changed[row.account_id] = account
        self._extended[key] = (row.amount, row.key_day, *key)

    def _settle(self, order: Settle) -> Result:
        hold = order.hold
        key = (hold.request_id, hold.attempt)
        row = self._holds.get(key)
        is_key_lost = order.key is not None and not self._keys.is_claimed_by(order.key, hold.request_id)
        if row is None:
            # Its opening was never committed: nothing is held.
            return Settled(0, 0, HoldState.RELEASED, is_key_lost=is_key_lost)
        if order.expired_only and (row.state != OPEN or row.lease_until > self._now):
            return None
        is_late = False
        if row.state == CAPTURED:
            return Settled(row.charged or 0, 0, HoldState.CAPTURED)
        if row.state == RELEASED:
            # The sweeper took us for dead and gave the hold back. An answer that was delivered is charged all the same.
            is_late = row.outcome == SERVER_KILLED and order.charge > 0
            if not is_late or is_key_lost:
                return Settled(0, 0, HoldState.RELEASED, is_key_lost=is_key_lost)
        if is_key_lost:
            # Another call has the key and is charged for it. One key, one charge: this answer does not go out.
            lost_with_key = Unpaid(order.charge if order.unpaid is None else order.unpaid.used)
            order = replace(order, charge=0, outcome=Outcome.SERVER_FAILED, answer=None, unpaid=lost_with_key)
        charged, counted = 0, None
        of_key = row.of_key
        if of_key is not None and not is_late:
            self._spending.release(of_key)
        batcher = self._accounts.get(row.account_id)
        if batcher is not None:
            if order.unpaid is not None and order.unpaid.seen:
                counted = self._unpaid.count(row.account_id, order.unpaid)
                order = replace(order, charge=order.unpaid.seen - counted.units)
            charged = self._capture(batcher, row, order, is_late=is_late)
        lost = max(order.charge, 0 if order.unpaid is None else order.unpaid.used) - charged
        state = HoldState.CAPTURED if order.charge > 0 else HoldState.RELEASED
        row.state = str(state)
        row.outcome = str(order.outcome)
        row.charged = charged
        self._closed[key] = (
            row.state, str(order.stage), self._now, row.outcome, order.reported, charged, order.sid, *key,
        )  # fmt: skip
        if is_late:
            self._outdated_losses.append(key)  # the sweeper's, which took all of it for lost
        if lost > 0:
            reason = (
                LossReason.ACCOUNT_GONE if batcher is None
                else LossReason.LATE if is_late
                else LossReason.KEY_LOST if is_key_lost
                else LossReason.OVER_HOLD if order.unpaid is None
                else order.outcome
            )  # fmt: skip
            self._lose(key, row, lost, reason, counted)
        if order.answer is not None:
            self._keys.answer(Key(*order.answer[:2]), order.answer[2])
        return Settled(charged, lost, state, is_key_lost=is_key_lost)

    def _lose(
        self, key: tuple[str, int], row: _Hold, units: int, reason: LossReason | Outcome, counted: Counted | None
    ) -> None:
        """Note what nobody pays, and how much of it counts against the account's bound."""
        unpaid, day = (counted.units, counted.day) if counted is not None and counted.units else (0, None)
        self._losses.append((*key, row.account_id, row.capability, units, str(reason), self._now, unpaid, day))

    def _capture(self, batcher: list[Any], row: _Hold, order: Settle, *, is_late: bool) -> int:
        """Give the hold back and take the charge instead, never more than was held; return what was taken."""
        held_at, balance_at = HELD_AT[row.capability], BALANCE_AT[row.capability]
        units = min(order.charge, row.amount)
        of_key = row.of_key
        if is_late and of_key is not None:
            units = int(min(units, self._spending.room_of_late(of_key)))
        balance = batcher[balance_at]
        if not is_late:
            batcher[held_at] -= row.amount
            self._changed[row.account_id] = batcher
            if balance is not None:
                units = min(units, balance)
        elif balance is not None:
            # Nothing is held for it any more; what is held for others stays theirs.
            units = max(0, min(units, balance - batcher[held_at]))
        if not units:
            return 0
        if balance is not None:
            batcher[balance_at] = balance - units
        if of_key is not None:
            self._spending.spend(of_key, units)
        if (used_at := USED_AT.get(row.capability)) is not None:
            batcher[used_at] += units
        rule = settled_rule(
            row.rule, amount=row.amount, outcome=str(order.outcome), stage=str(order.stage), reported=order.reported
        )
        self._enter(batcher, row.capability, -units, CHARGE, order.hold.request_id, order.hold.attempt, rule)
        return units

    def _grant(self, order: Grant) -> Result:
        batcher = self._accounts.get(order.account_id)
        if batcher is None:
            return AccountUnknown()
        at = BALANCE_AT[order.capability]
        balance = batcher[at] or 0  # granting to an unmetered account makes it metered
        free = max(0, balance - batcher[HELD_AT[order.capability]])
        amount: int = max(order.amount, -free)
        if balance + amount > MAX_UNITS:
            return InvalidInput(Detail.BALANCE_TOO_LARGE, limit=MAX_UNITS)
        batcher[at] = balance + amount
        self._changed[order.account_id] = batcher
        if amount:
            rule = "{}"
            if order.kind is Kind.SIGNUP:
                uuid = str(self._owners[order.account_id][0])
                rule = snapshot(uuid_sha256=uuid_fingerprint(order.account_id, uuid))
            self._enter(batcher, str(order.capability), amount, str(order.kind), order.reference, 0, rule)
        return amount

    def _refund(self, order: Refund) -> Result:
        batcher = self._accounts.get(order.account_id)
        if batcher is None:
            return AccountUnknown()
        calls = {
            key: row
            for key, row in self._holds.items()
            if key[0] == order.request_id
            and row.account_id == order.account_id
            and (row.charged if order.attempt is None else key[1] == order.attempt)
        }
        if len(calls) > 1:
            return InvalidInput(Detail.REFUND_ATTEMPT_AMBIGUOUS)
        booked = self._booked.setdefault((order.account_id, order.request_id), [])
        for key, row in calls.items():
            at = BALANCE_AT[row.capability]
            if not row.charged:
                break
            if any(kind == REFUND and attempt == key[1] for kind, attempt, _ in booked):
                return InvalidInput(Detail.REFUND_REPEATED)
            if batcher[at] is None or (CHARGE, key[1], None) in booked:
                return InvalidInput(Detail.REFUND_NOT_METERED)
            if batcher[at] + row.charged > MAX_UNITS:
                return InvalidInput(Detail.BALANCE_TOO_LARGE, limit=MAX_UNITS)
            batcher[at] += row.charged
            self._enter(batcher, row.capability, row.charged, REFUND, *key, row.rule)
            booked.append((REFUND, key[1], batcher[at]))
            return Refunded(Meter(row.capability), row.charged, key[1])
        return InvalidInput(Detail.REFUND_NOTHING_CHARGED)

    def _enter(
        self, batcher: list[Any], capability: str, amount: int, kind: str, request_id: str, attempt: int, rule: str
    ) -> None:
        account_id, seq, balance = batcher[ACCOUNT_ID], batcher[SEQ] + 1, batcher[BALANCE_AT[capability]]
        sealed = seal(
            batcher[HASH],
            account_id=account_id,
            seq=seq,
            capability=capability,
            amount=amount,
            balance=balance,
            kind=kind,
            request_id=request_id,
            attempt=attempt,
            rule=rule,
            created_at=self._now,
        )
        batcher[SEQ], batcher[HASH] = seq, sealed
        self._changed[account_id] = batcher
        self._entries.append(
            (account_id, seq, capability, amount, balance, kind, request_id, attempt, rule, self._now, sealed)
        )

    # -- writing --------------------------------------------------------------------------------------------------

    def _write(self) -> Steps[None]:
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
            rows = list(self._renewed.values())
            yield update_rows(dialect, holds, HOLD_KEY, ("lease_until", "stage"), rows, where=("state", OPEN))
        if self._entries:
            yield insert_rows(dialect, ledger_entry, ENTRY, self._entries)
        if self._outdated_losses:
            yield delete_rows(dialect, operator_loss, HOLD_KEY, self._outdated_losses)
        if self._losses:
            yield insert_rows(dialect, operator_loss, LOSS, self._losses)
        yield from self._spending.write()
        yield from self._unpaid.write()
        yield from self._keys.write(self._now)
        if self._changed:
            yield update_rows(dialect, users, ("AccountId",), ACCOUNT_COLUMNS[:-1], list(self._changed.values()))


# -- leases ------------------------------------------------------------------------------------------------------------


class Expired(NamedTuple):
    """A hold whose lease has run out.

    Attributes:
        stage: the last one that its owner noted.
        rule: price and rule as they were: JSON.
    """

    hold: Hold
    stage: Stage
    rule: str


async def expired_holds(connection: AsyncConnection, *, dialect: str, limit: int) -> list[Expired]:
    """Return holds whose lease has run out.

    Holds with words that we do not know, since somebody edited them, are left to `aiproject.ledger.verify`.
    """
    rows = await connection.execute(
        select(
            holds.c.account_id,
            holds.c.capability,
            holds.c.amount,
            holds.c.request_id,
            holds.c.attempt,
            holds.c.stage,
            holds.c.rule,
        )
        .where(
            holds.c.state == OPEN,
            holds.c.lease_until < database_now(dialect),
            holds.c.capability.in_(list(Meter)),
            holds.c.stage.in_(list(Stage)),
        )
        .order_by(holds.c.lease_until)
        .limit(limit)
    )
    return [Expired(Hold(row[0], Meter(row[1]), row[2], row[3], row[4]), Stage(row[5]), row[6]) for row in rows]
