"""What the operator bears, summed up by account and reason. Only reads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from sqlalchemy import func, select

from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.schema import operator_loss as losses
from aiproject.adapters.db.schema import user as users
from aiproject.ledger.lease_store import database_now

__all__ = ["LossFilter", "LossSum", "sums_of_losses"]

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class LossFilter:
    """Which losses are meant; ``None``: all.

    Attributes:
        days: only those of the last so many times 24 hours, by the database's clock.
    """

    account_id: int | None = None
    reason: str | None = None
    days: float | None = None


@dataclass(frozen=True, slots=True)
class LossSum:
    """The losses of one account for one reason.

    Attributes:
        account: its user name; empty if it is gone.
        amount: tokens, pictures or milliseconds that upstream may bill and nobody paid.
        unpaid: the part of them that counted against the account's daily bounds.
        newest_at: milliseconds since 1970.
    """

    account_id: int
    account: str
    reason: str
    capability: str
    calls: int
    amount: int
    unpaid: int
    newest_at: int


async def sums_of_losses(database: Database, wanted: LossFilter) -> AsyncIterator[LossSum]:
    """Yield the sums, the largest first."""
    amount = func.sum(losses.c.amount)
    statement = (
        select(
            losses.c.account_id,
            func.coalesce(users.c.UserName, ""),
            losses.c.reason,
            losses.c.capability,
            func.count(),
            amount,
            func.sum(losses.c.unpaid),
            func.max(losses.c.created_at),
        )
        .select_from(losses.outerjoin(users, users.c.AccountId == losses.c.account_id))
        .group_by(losses.c.account_id, users.c.UserName, losses.c.reason, losses.c.capability)
        .order_by(amount.desc(), losses.c.account_id, losses.c.reason, losses.c.capability)
    )
    if wanted.account_id is not None:
        statement = statement.where(losses.c.account_id == wanted.account_id)
    if wanted.reason is not None:
        statement = statement.where(losses.c.reason == wanted.reason)
    if wanted.days is not None:
        since = database_now(database.dialect) - int(wanted.days * DAY_MS)
        statement = statement.where(losses.c.created_at >= since)
    async with database.connect() as connection:
        rows = (await connection.execute(statement)).all()
    for account_id, name, reason, capability, calls, units, unpaid, newest_at in rows:
        yield LossSum(account_id, name, reason, capability, calls, int(units), int(unpaid), newest_at)
