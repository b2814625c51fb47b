"""The three lists of the original's console.

Tables and columns are named here only. A caller gives a key of `TABLES`, numbers, and text that is bound as a
parameter; none of it becomes part of an SQL statement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from msgspec import Meta, Struct

from aiproject.accounts.core.model import is_askable
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.schema import administrator, name_key, user, voucher
from aiproject.adapters.http.operation import members
from aiproject.administration.model import MASK, Role
from aiproject.errors import NotFound
from aiproject.protocols.names import lookup_keys
from aiproject.vouchers.model import normal_code

__all__ = [
    "TABLES",
    "AdministratorRow",
    "TableUnknown",
    "Tables",
    "UserRow",
    "VoucherRow",
]

MAX_ROWS = 500
"""Rows of one answer; who asks for more gets so many."""

MAX_SEARCH_LENGTH = 100


Id = Annotated[str, Meta(description="编号", examples=["452170316148736"])]
Masked = Annotated[str, Meta(description="已打码", examples=[MASK])]
Tokens = Annotated[int, Meta(description="单位为 token", examples=[10_000], extra_json_schema={"x-unit": "token"})]
Pictures = Annotated[int, Meta(description="单位为图片（张）", examples=[10], extra_json_schema={"x-unit": "picture"})]


class UserRow(Struct, kw_only=True):
    """An account in the console's list; its uuid is a credential and in none."""

    Id: Annotated[Id, Meta(description="账户编号，不是 uuid")]
    UserName: Annotated[str, Meta(description="用户名", examples=["小明"])]
    PassWord: Masked
    Tokens: Tokens
    Email: Annotated[str, Meta(description="邮箱", examples=["ming@example.com"])]
    PicTimes: Pictures
    Academy: Annotated[str, Meta(description="学院，可为空")]


class AdministratorRow(Struct, kw_only=True):
    """An administrator in the console's list."""

    Id: Id
    Auth: Annotated[Literal[0, 1], Meta(description="owner 为 1")]
    Admin: Annotated[str, Meta(description="管理员用户名", examples=["admin"])]
    PassWord: Masked
    Role: Annotated[Role, Meta(description="角色")]


class VoucherRow(Struct, kw_only=True):
    """A voucher in the console's list."""

    Id: Annotated[str, Meta(description="用户兑换时填写的兑换码；对 auditor 打码", examples=["7G3K-QX0N-M2RD-94VB"])]
    Tokens: Tokens
    PicTimes: Pictures
    TokenRange: Annotated[str, Meta(description="可兑换的学院；空表示所有人")]
    Name: Annotated[str, Meta(description="令牌的名称", examples=["开学礼包"])]
    Available: Annotated[Literal[0, 1], Meta(description="1 启用，0 禁用")]


TableRow = UserRow | AdministratorRow | VoucherRow
Row = dict[str, Any]
"""The members of a `TableRow`."""


class TableUnknown(NotFound):
    """The console has no list of this name."""


@dataclass(frozen=True, slots=True)
class _Name:
    """A column by which rows are searched and named.

    Attributes:
        to_key: normalises a text to the column's form; empty: no row can have it.
        to_keys: makes the forms that a row with exactly this name may have, the preferred one first;
            ``None``: that of ``to_key``.
        is_secret: only for those to whom codes may be shown. To others, what is found, how many and in which order must
            be the same whatever the column holds.
    """

    column: sa.Column[Any]
    to_key: Callable[[str], str]
    to_keys: Callable[[str], tuple[str, ...]] | None = None
    is_secret: bool = False

    def keys(self, text: str) -> tuple[str, ...]:
        """Return the column's forms of a whole name; none: it is in no row."""
        if not is_askable(text):  # a lone surrogate or a NUL
            return ()
        return self.to_keys(text) if self.to_keys is not None else tuple(filter(None, (self.to_key(text),)))


@dataclass(frozen=True, slots=True)
class _Table:
    """One list: what is read of which rows, in which order, and how a row is shown.

    Attributes:
        show: makes the row that the console reads; its second argument says whether codes may be shown.
        names: the columns by which a row is looked up, in this order, and which are searched.
    """

    columns: tuple[sa.Column[Any], ...]
    order: tuple[sa.Column[Any], ...]
    show: Callable[[Any, bool], TableRow]
    names: tuple[_Name, ...]
    condition: sa.ColumnElement[bool] | None = None

    def names_for(self, shows_codes: bool) -> list[_Name]:
        """Return those that may be asked for."""
        return [name for name in self.names if shows_codes or not name.is_secret]


def _show_user(row: Any, _: bool) -> TableRow:
    return UserRow(
        Id=str(row.AccountId),
        UserName=row.UserName,
        PassWord=MASK,
        Tokens=row.Tokens,
        Email=row.Email,
        PicTimes=row.PicTimes,
        Academy=row.Academy or "",
    )


def _show_administrator(row: Any, _: bool) -> TableRow:
    return AdministratorRow(
        Id=str(row.admin_id),
        Auth=1 if row.role == Role.OWNER else 0,
        Admin=row.name,
        PassWord=MASK,
        Role=row.role,
    )


def _show_voucher(row: Any, shows_codes: bool) -> TableRow:
    return VoucherRow(
        Id=row.code if shows_codes else MASK,
        Tokens=row.tokens,
        PicTimes=row.pic_times,
        TokenRange=row.audience or "",
        Name=row.name or "",
        Available=1 if row.is_available else 0,
    )


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
        names=(_Name(user.c.NameKey, name_key, lookup_keys),),
        condition=user.c.DeletedAt.is_(None),
    ),
    "admin": _Table(
        columns=(administrator.c.admin_id, administrator.c.role, administrator.c.name),
        order=(administrator.c.admin_id,),
        show=_show_administrator,
        names=(_Name(administrator.c.name_key, name_key, lookup_keys),),
    ),
    "token": _Table(
        columns=(
            voucher.c.code,
            voucher.c.name,
            voucher.c.tokens,
            voucher.c.pic_times,
            voucher.c.audience,
            voucher.c.is_available,
        ),
        order=(voucher.c.created_at, voucher.c.voucher_id),
        show=_show_voucher,
        names=(_Name(voucher.c.name_key, name_key), _Name(voucher.c.code, normal_code, is_secret=True)),
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
            shows_codes: whether vouchers' codes are shown and searched, which whoever knows them may redeem.

        Raises:
            TableUnknown: there is no such list.
        """
        table = _table(name)
        statement = (
            sa.select(*table.columns)
            .where(*_conditions(table, search, shows_codes))
            .order_by(*table.order)
            .limit(min(limit, MAX_ROWS))
            .offset(start)
        )
        async with self._database.connect() as connection:
            return [members(table.show(row, shows_codes)) for row in await connection.execute(statement)]

    async def count(self, name: str, *, search: str, shows_codes: bool) -> int:
        """Return how many rows a list has.

        Args:
            search, shows_codes: as in `page`.

        Raises:
            TableUnknown: there is no such list.
        """
        table = _table(name)
        statement = (
            sa.select(sa.func.count()).select_from(table.order[0].table).where(*_conditions(table, search, shows_codes))
        )
        async with self._database.connect() as connection:
            return int((await connection.execute(statement)).scalar_one())

    async def row(self, name: str, target: str, *, shows_codes: bool) -> Row:
        """Return the one row with this name.

        Args:
            shows_codes: as in `page`; a voucher is found by its code as well.

        Raises:
            TableUnknown: there is no such list.
            NotFound: no such row.
        """
        table = _table(name)
        async with self._database.connect() as connection:
            for column, key in [
                (each.column, key) for each in table.names_for(shows_codes) for key in each.keys(target)
            ]:
                statement = sa.select(*table.columns).where(*_conditions(table), column == key)
                row = (await connection.execute(statement)).one_or_none()
                if row is not None:
                    return members(table.show(row, shows_codes))
        raise NotFound


def _table(name: str) -> _Table:
    table = TABLES.get(name)
    if table is None:
        raise TableUnknown
    return table


def _conditions(table: _Table, search: str = "", shows_codes: bool = False) -> list[sa.ColumnElement[bool]]:
    conditions = [] if table.condition is None else [table.condition]
    search = search.strip()[:MAX_SEARCH_LENGTH]
    if search:
        keys = [(name.column, _key(name, search)) for name in table.names_for(shows_codes)]
        # What normalises to nothing is in every name, so it is not asked for.
        conditions.append(sa.or_(sa.false(), *(column.contains(key, autoescape=True) for column, key in keys if key)))
    return conditions


def _key(name: _Name, text: str) -> str:
    """Return the column's form of a text; empty: a lone surrogate or a NUL is in no row."""
    return name.to_key(text) if is_askable(text) else ""
