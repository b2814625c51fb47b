"""Leases by the database's clock: whatever the nodes' own clocks say, all compare a lease with the same one."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import ColumnElement, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.adapters.db.schema import hold as holds
from aiproject.ledger.model import Hold, HoldState, Meter, Stage
from aiproject.ledger.sql import NOW_MS

__all__ = ["Expired", "database_now", "expired_holds"]


def database_now(dialect: str) -> ColumnElement[int]:
    """Return the database's clock as an SQL expression, in milliseconds since 1970."""
    return literal_column(NOW_MS[dialect])


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
    """Return open holds whose lease has run out, the longest ago first.

    Holds with words that this release does not know, since somebody edited them, are left to `aiproject.ledger.verify`.
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
            holds.c.state == str(HoldState.OPEN),
            holds.c.lease_until < database_now(dialect),
            holds.c.capability.in_(list(Meter)),
            holds.c.stage.in_(list(Stage)),
        )
        .order_by(holds.c.lease_until)
        .limit(limit)
    )
    return [Expired(Hold(row[0], Meter(row[1]), row[2], row[3], row[4]), Stage(row[5]), row[6]) for row in rows]
