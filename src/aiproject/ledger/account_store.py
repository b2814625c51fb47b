"""What services of the ledger read of an account's row outside of a batch."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.adapters.db.schema import user as users
from aiproject.ledger.batch import BALANCE
from aiproject.ledger.model import Meter

__all__ = ["name_and_balances"]


async def name_and_balances(connection: AsyncConnection, account_id: int) -> tuple[str, dict[Meter, int]]:
    """Return an account's user name and its balances, voice in milliseconds."""
    statement = select(users.c.UserName, *BALANCE.values()).where(users.c.AccountId == account_id)
    name, *balances = (await connection.execute(statement)).one()
    return name, dict(zip(BALANCE, balances, strict=True))
