"""SQL of checkpoints: the heads of all chains, and what is compared with them later."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.adapters.db.schema import audit_entry
from aiproject.adapters.db.schema import ledger_entry as entries
from aiproject.adapters.db.schema import user as users
from aiproject.ledger.checkpoint import Head

__all__ = ["audit_hash", "audit_head", "entry_hashes", "existing_accounts", "heads_after"]


async def audit_head(connection: AsyncConnection) -> Head:
    """Return the head of the audit log's chain."""
    newest = select(audit_entry.c.seq, audit_entry.c.hash).order_by(audit_entry.c.seq.desc()).limit(1)
    row = (await connection.execute(newest)).one_or_none()
    return Head(0, 0, "") if row is None else Head(0, row.seq, row.hash)


async def audit_hash(connection: AsyncConnection, seq: int) -> str | None:
    """Return the hash of an entry of the audit log; ``None``: there is no such entry."""
    statement = select(audit_entry.c.hash).where(audit_entry.c.seq == seq)
    return (await connection.execute(statement)).scalar_one_or_none()


async def heads_after(connection: AsyncConnection, account_id: int, limit: int) -> list[Head]:
    """Return the heads of the accounts with higher numbers, in the order of numbers."""
    statement = (
        select(users.c.AccountId, users.c.LedgerSeq, users.c.LedgerHash)
        .where(users.c.AccountId > account_id)
        .order_by(users.c.AccountId)
        .limit(limit)
    )
    return [Head(*row) for row in await connection.execute(statement)]


async def existing_accounts(connection: AsyncConnection, numbers: Collection[int]) -> set[int]:
    """Return those of the numbers that are an account's."""
    return set((await connection.execute(select(users.c.AccountId).where(users.c.AccountId.in_(numbers)))).scalars())


async def entry_hashes(connection: AsyncConnection, places: Collection[tuple[int, int]]) -> dict[tuple[int, int], str]:
    """Return the hashes of ledger entries, by account and number; entries that do not exist are missing."""
    if not places:
        return {}
    statement = select(entries.c.account_id, entries.c.seq, entries.c.hash)
    rows = await connection.execute(statement.where(tuple_(entries.c.account_id, entries.c.seq).in_(places)))
    return {(row.account_id, row.seq): row.hash for row in rows}
