"""The columns of an account's row that the ledger works with, and what it reads of them outside of a batch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.schema import user as users
from aiproject.ledger.model import Meter

__all__ = ["BALANCE", "HELD", "USED", "Balance", "name_and_balances", "read_balances"]

BALANCE = {meter: users.c[meter.spec.balance] for meter in Meter}
HELD = {meter: users.c[meter.spec.held] for meter in Meter}
USED = {meter: users.c[meter.spec.used] for meter in Meter if meter.spec.used is not None}


class Balance(NamedTuple):
    """What an account has of one meter, in its units.

    Attributes:
        balance: ``None``: it is not metered.
        held: by open holds.
    """

    balance: int | None
    held: int


async def read_balances(database: Database, account_ids: Collection[int]) -> Mapping[tuple[int, Meter], Balance]:
    """Return the balances of the accounts that there are, in one statement and without a lock.

    Raises:
        Unavailable: the database is away.
    """
    columns = [column for meter in Meter for column in (BALANCE[meter], HELD[meter])]
    statement = select(users.c.AccountId, *columns).where(users.c.AccountId.in_(sorted(account_ids)))
    async with database.connect() as connection:
        rows = (await connection.execute(statement)).all()
    return {
        (account_id, meter): Balance(balance, held)
        for account_id, *numbers in rows
        for meter, balance, held in zip(Meter, numbers[::2], numbers[1::2], strict=True)
    }


async def name_and_balances(connection: AsyncConnection, account_id: int) -> tuple[str, dict[Meter, int]]:
    """Return an account's user name and its balances, voice in milliseconds."""
    statement = select(users.c.UserName, *BALANCE.values()).where(users.c.AccountId == account_id)
    name, *balances = (await connection.execute(statement)).one()
    return name, dict(zip(BALANCE, balances, strict=True))
