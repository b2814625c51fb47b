"""All SQL on balances, holds and ledger entries. `apply` works a batch of orders off inside the caller's transaction.

Order of locks: account rows first, in the order of their numbers, then everything else. Whoever changes a hold or
appends an entry holds the account's row, so that two batches meet there and nowhere else.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Table, bindparam, insert, literal_column, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.adapters.schema import hold as holds
from aiproject.adapters.schema import ledger_entry, operator_loss, stored_answer
from aiproject.adapters.schema import user as users
from aiproject.errors import AccountUnknown, AiProjectError, QuotaExhausted
from aiproject.quotas.chain import seal
from aiproject.quotas.model import (
    AccountBooks,
    Capability,
    Grant,
    Hold,
    HoldState,
    Kind,
    OpenHold,
    Outcome,
    Settle,
    Settled,
    Stage,
)

__all__ = ["Order", "Result", "apply", "database_now", "expired_holds", "renew_leases"]

Order = OpenHold | Settle | Grant
Result = Hold | Settled | int | AiProjectError | None

NOW_MS = {
    "sqlite": "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)",
    "mysql": "CAST(ROUND(UNIX_TIMESTAMP(SYSDATE(3)) * 1000) AS SIGNED)",
    "postgresql": "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
}
"""The database's clock in milliseconds since 1970: leases are compared by one clock, whatever the nodes' own say."""

BALANCE = {
    Capability.TOKENS: users.c.Tokens,
    Capability.PIC_TIMES: users.c.PicTimes,
    Capability.VOICE_SECONDS: users.c.VoiceMs,
}
HELD = {
    Capability.TOKENS: users.c.HeldTokens,
    Capability.PIC_TIMES: users.c.HeldPicTimes,
    Capability.VOICE_SECONDS: users.c.HeldVoiceMs,
}


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
    work = _Batch(connection, dialect)
    await work.load(orders, may_be_done=may_be_done)
    results = [work.do(order) for order in orders]
    await work.write()
    return results


class _Batch:
    """One batch, worked out in memory between a few statements that load and a few that write."""

    def __init__(self, connection: AsyncConnection, dialect: str) -> None:
        self._connection = connection
        self._dialect = dialect
        self._now = int(time.time() * 1000)
        self._accounts: dict[int, AccountBooks] = {}
        self._holds: dict[tuple[str, int], dict[str, Any]] = {}
        self._claims: dict[tuple[str, str], str] = {}
        self._new_holds: list[dict[str, Any]] = []
        self._closed_holds: list[dict[str, Any]] = []
        self._entries: list[dict[str, Any]] = []
        self._losses: list[dict[str, Any]] = []
        self._answers: list[dict[str, Any]] = []

    async def load(self, orders: Sequence[Order], *, may_be_done: bool) -> None:
        account_ids = {_account_of(order) for order in orders}
        rows = await self._connection.execute(
            select(
                users.c.AccountId, *BALANCE.values(), *HELD.values(),
                users.c.VoiceUsedMs, users.c.LedgerSeq, users.c.LedgerHash, database_now(self._dialect),
            )
            .where(users.c.AccountId.in_(sorted(account_ids)))
            .order_by(users.c.AccountId)
            .with_for_update()
        )  # fmt: skip
        for row in rows:
            self._accounts[row[0]] = AccountBooks(
                row[0],
                dict(zip(BALANCE, row[1:4], strict=True)),
                dict(zip(HELD, row[4:7], strict=True)),
                voice_used_ms=row[7],
                seq=row[8],
                hash=row[9],
            )
            self._now = int(row[10])
        wanted = {order.hold.request_id for order in orders if isinstance(order, Settle)}
        if may_be_done:
            wanted |= {order.request_id for order in orders if isinstance(order, OpenHold)}
        if wanted:
            found = await self._connection.execute(select(holds).where(holds.c.request_id.in_(sorted(wanted))))
            self._holds = {(row["request_id"], row["attempt"]): dict(row) for row in found.mappings()}
        keys = {order.answer[:2] for order in orders if isinstance(order, Settle) and order.answer is not None}
        if keys:
            # Locked, so that nobody takes a claim over between this look and the commit.
            key = tuple_(stored_answer.c.scope, stored_answer.c.key_hash)
            claims = await self._connection.execute(
                select(stored_answer.c.scope, stored_answer.c.key_hash, stored_answer.c.request_id)
                .where(key.in_(sorted(keys)), stored_answer.c.state == "running")
                .with_for_update()
            )
            self._claims = {(scope, key_hash): request_id for scope, key_hash, request_id in claims}

    def do(self, order: Order) -> Result:
        match order:
            case OpenHold():
                return self._open(order)
            case Settle():
                return self._settle(order)
            case Grant():
                return self._grant(order)

    async def write(self) -> None:
        connection = self._connection
        if self._new_holds:
            await connection.execute(insert(holds), self._new_holds)
        await self._update(holds, ("request_id", "attempt"), self._closed_holds)
        if self._entries:
            await connection.execute(insert(ledger_entry), self._entries)
        if self._losses:
            await connection.execute(insert(operator_loss), self._losses)
        await self._update(stored_answer, ("scope", "key_hash"), self._answers)
        await self._update(users, ("AccountId",), [_row(a) for a in self._accounts.values() if a.is_changed])

    # -- orders ---------------------------------------------------------------------------------------------------

    def _open(self, order: OpenHold) -> Result:
        known = self._holds.get((order.request_id, order.attempt))
        if known is not None:
            return Hold(order.account_id, order.capability, known["amount"], order.request_id, order.attempt)
        books = self._accounts.get(order.account_id)
        if books is None:
            return AccountUnknown()
        available = books.available(order.capability)
        amount = order.want
        if available is not None:
            if available < max(order.need, 1):
                return QuotaExhausted(order.capability)
            amount = min(amount, available)
        books.held[order.capability] += amount
        books.is_changed = True
        row = {
            "request_id": order.request_id,
            "attempt": order.attempt,
            "account_id": order.account_id,
            "capability": str(order.capability),
            "amount": amount,
            "state": str(HoldState.OPEN),
            "stage": str(Stage.HELD),
            "owner": order.owner,
            "lease_until": self._now + order.lease_ms,
            "opened_at": self._now,
            "rule": order.rule,
        }
        self._new_holds.append(row)
        self._holds[order.request_id, order.attempt] = row
        return Hold(order.account_id, order.capability, amount, order.request_id, order.attempt)

    def _settle(self, order: Settle) -> Result:
        key = (order.hold.request_id, order.hold.attempt)
        row = self._holds.get(key)
        books = self._accounts.get(order.hold.account_id or 0)
        is_key_lost = order.answer is not None and self._claims.get(order.answer[:2]) != key[0]
        if row is None or books is None:
            # Its opening was never committed: nothing is held.
            return Settled(0, 0, HoldState.RELEASED, is_key_lost=is_key_lost)
        is_late = False
        if row["state"] == HoldState.CAPTURED:
            return Settled(row["charged"], 0, HoldState.CAPTURED)
        if row["state"] == HoldState.RELEASED:
            # The sweeper took us for dead and gave the hold back. An answer that was delivered is charged all the same.
            is_late = row["outcome"] == Outcome.SERVER_KILLED and order.charge > 0 and not order.expired_only
            if not is_late or is_key_lost:
                return Settled(0, 0, HoldState.RELEASED, is_key_lost=is_key_lost)
        elif order.expired_only and row["lease_until"] > self._now:
            return None
        if is_key_lost:
            # Another call has the key and is charged for it. One key, one charge: this answer does not go out.
            order = replace(order, charge=0, outcome=Outcome.SERVER_FAILED, answer=None)
        capability = Capability(row["capability"])
        if is_late:
            available = books.available(capability)
            charged = order.charge if available is None else min(order.charge, max(0, available))
        else:
            books.held[capability] -= row["amount"]
            charged = min(order.charge, row["amount"])
        charged = self._take(books, capability, min(charged, row["amount"]), row)
        lost = max(0, order.charge - charged)
        state = HoldState.CAPTURED if order.charge > 0 else HoldState.RELEASED
        closing = {
            "request_id": key[0],
            "attempt": key[1],
            "state": str(state),
            "stage": str(order.stage),
            "closed_at": self._now,
            "outcome": str(order.outcome),
            "reported": order.reported,
            "charged": charged,
            "sid": order.sid,
        }
        row.update(closing)
        self._closed_holds.append(closing)
        if lost:
            self._losses.append(
                {
                    "request_id": key[0],
                    "attempt": key[1],
                    "account_id": books.account_id,
                    "capability": str(capability),
                    "amount": lost,
                    "reason": "late" if is_late else "over the hold",
                    "created_at": self._now,
                }
            )
        if order.answer is not None:
            scope, key_hash, answer = order.answer
            self._answers.append({"scope": scope, "key_hash": key_hash, "state": "done", "answer": answer})
        return Settled(charged, lost, state, is_key_lost=is_key_lost)

    def _take(self, books: AccountBooks, capability: Capability, amount: int, row: Mapping[str, Any]) -> int:
        balance = books.balances[capability]
        if balance is not None:
            amount = min(amount, balance)
            books.balances[capability] = balance - amount
        if capability is Capability.VOICE_SECONDS:
            books.voice_used_ms += amount
        books.is_changed = True
        if amount:
            self._enter(books, capability, -amount, Kind.CHARGE, row["request_id"], row["attempt"], row["rule"])
        return amount

    def _grant(self, order: Grant) -> Result:
        books = self._accounts.get(order.account_id)
        if books is None:
            return AccountUnknown()
        balance = books.balances[order.capability] or 0  # granting to an unmetered account makes it metered
        free = max(0, balance - books.held[order.capability])
        amount = max(order.amount, -free)
        books.balances[order.capability] = balance + amount
        books.is_changed = True
        if amount:
            self._enter(books, order.capability, amount, order.kind, order.reference, 0, "{}")
        return amount

    def _enter(
        self,
        books: AccountBooks,
        capability: Capability,
        amount: int,
        kind: Kind,
        request_id: str,
        attempt: int,
        rule: str,
    ) -> None:
        fields: dict[str, Any] = {
            "account_id": books.account_id,
            "seq": books.seq + 1,
            "capability": str(capability),
            "amount": amount,
            "balance": books.balances[capability],
            "kind": str(kind),
            "request_id": request_id,
            "attempt": attempt,
            "rule": rule,
            "created_at": self._now,
        }
        books.seq += 1
        books.hash = seal(books.hash, **fields)
        self._entries.append({**fields, "hash": books.hash})

    # -- bulk -----------------------------------------------------------------------------------------------------

    async def _update(self, table: Table, keys: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
        """Update many rows by their keys; every row has the same columns."""
        if not rows:
            return
        # A row that a batch changed twice is written once, as it is at the end: MySQL joins each row only once.
        rows = list({tuple(row[key] for key in keys): row for row in rows}.values())
        columns = [name for name in rows[0] if name not in keys]
        if self._dialect == "mysql":
            await self._update_by_join(table, keys, columns, rows)
            return
        statement = (
            update(table)
            .where(*(table.c[key] == bindparam(f"k_{key}") for key in keys))
            .values({name: bindparam(f"v_{name}") for name in columns})
        )
        await self._connection.execute(
            statement,
            [{f"k_{key}": row[key] for key in keys} | {f"v_{name}": row[name] for name in columns} for row in rows],
        )

    async def _update_by_join(
        self, table: Table, keys: tuple[str, ...], columns: list[str], rows: list[dict[str, Any]]
    ) -> None:
        # MySQL's drivers send an executemany of UPDATEs one by one, a round trip each; this is one.
        names = [*keys, *columns]
        first = "SELECT " + ", ".join(f"%s AS `{name}`" for name in names)
        further = " UNION ALL SELECT " + ", ".join("%s" for _ in names)
        matches = " AND ".join(
            # A literal has the connection's collation, the column its own: say which counts.
            f"t.`{key}` = v.`{key}`" + (" COLLATE utf8mb4_bin" if isinstance(rows[0][key], str) else "")
            for key in keys
        )
        changes = ", ".join(f"t.`{name}` = v.`{name}`" for name in columns)
        await self._connection.exec_driver_sql(
            f"UPDATE `{table.name}` AS t JOIN ({first}{further * (len(rows) - 1)}) AS v ON {matches} SET {changes}",  # noqa: S608 - names are ours
            tuple(row[name] for row in rows for name in names),
        )


def _account_of(order: Order) -> int:
    return (order.hold.account_id or 0) if isinstance(order, Settle) else order.account_id


def _row(books: AccountBooks) -> dict[str, Any]:
    row: dict[str, Any] = {"AccountId": books.account_id}
    row |= {column.name: books.balances[capability] for capability, column in BALANCE.items()}
    row |= {column.name: books.held[capability] for capability, column in HELD.items()}
    row |= {"VoiceUsedMs": books.voice_used_ms, "LedgerSeq": books.seq, "LedgerHash": books.hash}
    return row


# -- leases ------------------------------------------------------------------------------------------------------------


async def renew_leases(
    connection: AsyncConnection, *, dialect: str, owner: str, lease_ms: int, stages: Mapping[tuple[str, int], Stage]
) -> None:
    """Prolong every open hold of ``owner``, and note how far their calls have got."""
    await connection.execute(
        update(holds)
        .where(holds.c.owner == owner, holds.c.state == str(HoldState.OPEN))
        .values(lease_until=database_now(dialect) + lease_ms)
    )
    for (request_id, attempt), stage in stages.items():
        await connection.execute(
            update(holds)
            .where(holds.c.request_id == request_id, holds.c.attempt == attempt, holds.c.state == str(HoldState.OPEN))
            .values(stage=str(stage))
        )


async def expired_holds(connection: AsyncConnection, *, dialect: str, limit: int) -> list[tuple[Hold, Stage]]:
    """Return holds whose lease has run out, with the last stage that their owners noted."""
    rows = await connection.execute(
        select(
            holds.c.account_id, holds.c.capability, holds.c.amount, holds.c.request_id, holds.c.attempt, holds.c.stage
        )
        .where(holds.c.state == str(HoldState.OPEN), holds.c.lease_until < database_now(dialect))
        .order_by(holds.c.lease_until)
        .limit(limit)
    )
    return [(Hold(row[0], Capability(row[1]), row[2], row[3], row[4]), Stage(row[5])) for row in rows]
