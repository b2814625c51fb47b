"""Reading the tables of the legacy application, whose columns differ between its versions.

Source of tables and columns: the legacy application's clients, sections 7 and 8.3.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.adapters.db.schema import user

__all__ = ["REDEMPTIONS", "ColumnsUnknown", "account_ids", "redemptions", "rows"]

COLUMNS = {
    "admin": ("Auth", "Admin", "PassWord"),
    "token": ("Id", "Tokens", "PicTimes", "TokenRange", "Name", "Available"),
}

REDEMPTIONS = "user_token"

ACCOUNTS_AT_ONCE = 500
"""Accounts that one statement asks for."""


class ColumnsUnknown(Exception):
    """A table has none of the columns that are read of it."""


async def rows(connection: AsyncConnection, name: str) -> list[Mapping[str, Any]]:
    """Return the rows of a legacy table with the columns of `COLUMNS`; none if there is no such table."""

    def columns(sync: sa.Connection) -> set[str]:
        inspector = sa.inspect(sync)
        return {column["name"] for column in inspector.get_columns(name)} if inspector.has_table(name) else set()

    if not set(COLUMNS[name]) <= await connection.run_sync(columns):
        return []
    wanted: list[sa.ColumnClause[Any]] = [sa.column(each) for each in COLUMNS[name]]
    statement = sa.select(*wanted).select_from(sa.table(name))
    return [dict(row) for row in (await connection.execute(statement)).mappings()]


async def redemptions(connection: AsyncConnection) -> Sequence[tuple[Any, Any]]:
    """Return the pairs of user and voucher of the table of redemptions; none if there is no such table.

    Raises:
        ColumnsUnknown: it has no columns that name a user and a voucher.
    """
    columns = await connection.run_sync(_redemption_columns)
    if columns is None:
        return []
    of_user, of_token = columns
    if not of_user or not of_token:
        raise ColumnsUnknown
    table = sa.table(REDEMPTIONS, sa.column(of_user), sa.column(of_token))
    found = await connection.execute(sa.select(table.c[of_user], table.c[of_token]))
    return [(uuid, token) for uuid, token in found]


async def account_ids(connection: AsyncConnection, uuids: Collection[str]) -> dict[str, int]:
    """Return the numbers of those accounts that still have these uuids."""
    found: dict[str, int] = {}
    wanted = sorted(uuids)
    for start in range(0, len(wanted), ACCOUNTS_AT_ONCE):
        some = wanted[start : start + ACCOUNTS_AT_ONCE]
        selected = await connection.execute(sa.select(user.c.Id, user.c.AccountId).where(user.c.Id.in_(some)))
        found |= {row.Id: row.AccountId for row in selected}
    return found


def _redemption_columns(connection: sa.Connection) -> tuple[str | None, str | None] | None:
    """Return the columns that name user and token, by what they refer to or by their names; ``None``: no such table."""
    inspector = sa.inspect(connection)
    if not inspector.has_table(REDEMPTIONS):
        return None
    referring = {
        key["referred_table"]: key["constrained_columns"][0] for key in inspector.get_foreign_keys(REDEMPTIONS)
    }
    called = {column["name"].replace("_", "").lower(): column["name"] for column in inspector.get_columns(REDEMPTIONS)}
    return referring.get("user") or called.get("userid"), referring.get("token") or called.get("tokenid")
