"""The three lists of the original's console, read from tables and columns that are named here and nowhere else.

What a caller gives is a word that is looked up in `TABLES`, numbers, and text that is bound as a parameter; nothing of
it ever becomes SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from aiproject.accounts.model import is_askable
from aiproject.adapters.database import Database
from aiproject.adapters.schema import administrator, name_key, user, voucher
from aiproject.administration.model import MASK, Role
from aiproject.errors import NotFound
from aiproject.vouchers.model import masked, normal_code, number_of

__all__ = ["MOST_ROWS", "TABLES", "TableUnknown", "Tables"]

MOST_ROWS = 500
"""Rows of one answer; who asks for more gets so many."""

MAX_SEARCH_LENGTH = 100


class TableUnknown(NotFound):
    """The console has no list of this name."""


Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Table:
    """One list: what is read of which rows, in which order, and how a row is shown.

    Attributes:
        show: makes the row that the console reads; told whether codes may be shown.
        key: the column by which one row is named; ``to_key`` makes its form of a name.
        search: the column that is searched.
    """

    columns: tuple[sa.Column[Any], ...]
    order: tuple[sa.Column[Any], ...]
    show: Callable[[Any, bool], Row]
    key: sa.Column[Any]
    to_key: Callable[[str], str]
    search: sa.Column[Any]
    condition: sa.ColumnElement[bool] | None = None


def _show_user(row: Any, _: bool) -> Row:
    return {
        "Id": str(row.AccountId),  # never the uuid, which is the account's credential
        "UserName": row.UserName,
        "PassWord": MASK,
        "Tokens": row.Tokens,
        "Email": row.Email,
        "PicTimes": row.PicTimes,
        "Academy": row.Academy or "",
    }


def _show_administrator(row: Any, _: bool) -> Row:
    return {
        "Id": row.admin_id,
        "Auth": int(row.role == Role.OWNER),
        "Admin": row.name,
        "PassWord": MASK,
        "Role": row.role,
    }


def _show_voucher(row: Any, shows_codes: bool) -> Row:
    return {
        "Id": number_of(row.code),
        "Tokens": row.tokens,
        "PicTimes": row.pic_times,
        "TokenRange": row.audience or "",
        "Name": row.code if shows_codes else masked(row.code),
        "Available": int(row.is_available),
    }


TABLES: Mapping[str, _Table] = {
    "user": _Table(
        columns=(
            user.c.AccountId,
            user.c.UserName,
            user.c.Tokens,
            user.c.Email,
            user.c.PicTimes,
            user.c.Academy,
        ),
        order=(user.c.AccountId,),
        show=_show_user,
        key=user.c.NameKey,
        to_key=name_key,
        search=user.c.NameKey,
        condition=user.c.DeletedAt.is_(None),
    ),
    "admin": _Table(
        columns=(administrator.c.admin_id, administrator.c.role, administrator.c.name),
        order=(administrator.c.admin_id,),
        show=_show_administrator,
        key=administrator.c.name_key,
        to_key=name_key,
        search=administrator.c.name_key,
    ),
    "token": _Table(
        columns=(
            voucher.c.code,
            voucher.c.tokens,
            voucher.c.pic_times,
            voucher.c.audience,
            voucher.c.is_available,
        ),
        order=(voucher.c.created_at, voucher.c.code),
        show=_show_voucher,
        key=voucher.c.code,
        to_key=normal_code,
        search=voucher.c.code,
    ),
}


class Tables:
    """Reads the lists."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, name: str, *, start: int, limit: int, search: str, shows_codes: bool) -> list[Row]:
        """Return rows ``start`` to ``start + limit`` of a list, in the order in which they were made.

        Args:
            search: only rows whose name holds this text; empty: all.
            shows_codes: whether vouchers' codes are shown, which whoever knows them may redeem.

        Raises:
            TableUnknown: there is no such list.
        """
        table = _table(name)
        statement = (
            sa.select(*table.columns)
            .where(*_conditions(table, search))
            .order_by(*table.order)
            .limit(min(limit, MOST_ROWS))
            .offset(start)
        )
        async with self._database.connect() as connection:
            return [table.show(row, shows_codes) for row in await connection.execute(statement)]

    async def count(self, name: str, *, search: str) -> int:
        """Return how many rows a list has.

        Raises:
            TableUnknown: there is no such list.
        """
        table = _table(name)
        statement = sa.select(sa.func.count(table.key)).where(*_conditions(table, search))
        async with self._database.connect() as connection:
            return int((await connection.execute(statement)).scalar_one())

    async def row(self, name: str, target: str, *, shows_codes: bool) -> Row:
        """Return the one row with this name.

        Raises:
            TableUnknown: there is no such list.
            NotFound: no such row.
        """
        table = _table(name)
        key = table.to_key(target) if is_askable(target) else ""
        if not key:
            raise NotFound
        statement = sa.select(*table.columns).where(*_conditions(table, ""), table.key == key)
        async with self._database.connect() as connection:
            row = (await connection.execute(statement)).one_or_none()
        if row is None:
            raise NotFound
        return table.show(row, shows_codes)


def _table(name: str) -> _Table:
    table = TABLES.get(name)
    if table is None:
        raise TableUnknown
    return table


def _conditions(table: _Table, search: str) -> list[sa.ColumnElement[bool]]:
    found = [] if table.condition is None else [table.condition]
    search = search.strip()[:MAX_SEARCH_LENGTH]
    if search:
        # A lone surrogate or a NUL is in no name; what normalises to nothing is in every one, so neither is asked.
        key = table.to_key(search) if is_askable(search) else ""
        found.append(table.search.contains(key, autoescape=True) if key else sa.false())
    return found
