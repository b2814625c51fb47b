"""SQL of receipts: an account's entries and calls. Only reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import and_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.adapters.db.schema import hold as holds
from aiproject.adapters.db.schema import ledger_entry as entries
from aiproject.adapters.db.schema import operator_loss as losses
from aiproject.ledger.model import Entry, Kind, Meter

__all__ = ["entries_after", "holds_of_call", "newest_entries", "refunds_of_call"]


async def newest_entries(
    connection: AsyncConnection, account_id: int, *, limit: int, before: int | None
) -> list[Entry]:
    """Return entries with a number below ``before`` (``None``: any), the newest first."""
    older = () if before is None else (entries.c.seq < before,)
    statement = select(entries).where(entries.c.account_id == account_id, *older)
    return [_entry(row) for row in await connection.execute(statement.order_by(entries.c.seq.desc()).limit(limit))]


async def entries_after(connection: AsyncConnection, account_id: int, seq: int, *, limit: int) -> list[Entry]:
    """Return entries with a number above ``seq``, the oldest first."""
    statement = select(entries).where(entries.c.account_id == account_id, entries.c.seq > seq)
    return [_entry(row) for row in await connection.execute(statement.order_by(entries.c.seq).limit(limit))]


async def holds_of_call(connection: AsyncConnection, account_id: int, request_id: str) -> Sequence[Any]:
    """Return the holds of a call in the order of its attempts: rows of ``hold``, with ``lost`` and ``unpaid``."""
    of_hold = and_(losses.c.request_id == holds.c.request_id, losses.c.attempt == holds.c.attempt)
    statement = (
        select(holds, losses.c.amount.label("lost"), losses.c.unpaid)
        .select_from(holds.outerjoin(losses, of_hold))
        .where(holds.c.request_id == request_id, holds.c.account_id == account_id)
        .order_by(holds.c.attempt)
    )
    return (await connection.execute(statement)).all()


async def refunds_of_call(connection: AsyncConnection, account_id: int, request_id: str) -> dict[int, int]:
    """Return what was given back, by attempt."""
    statement = select(entries.c.attempt, entries.c.amount).where(
        entries.c.account_id == account_id,
        entries.c.kind == str(Kind.REFUND),
        entries.c.request_id == request_id,
    )
    return {row.attempt: row.amount for row in await connection.execute(statement)}


def _entry(row: Any) -> Entry:
    return Entry(**{**row._mapping, "capability": Meter(row.capability), "kind": Kind(row.kind)})
