"""All SQL on vouchers and their redemptions.

Lock order: the voucher's row, then its redemption, then the account's row (in `aiproject.ledger.batch`). A transaction
that holds an account's row never requests a voucher's, so there is no cycle with the ledger, which locks accounts only.
In the opposite order, every call that waits for a popular voucher would keep an account locked meanwhile, and with it a
whole batch of the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, insert, or_, select, update
from sqlalchemy import delete as delete_from
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.accounts.core.model import is_askable
from aiproject.adapters.db.schema import name_key
from aiproject.adapters.db.schema import voucher as vouchers
from aiproject.adapters.db.schema import voucher_redemption as redemptions
from aiproject.vouchers.model import Voucher, normal_code

__all__ = [
    "add",
    "change",
    "count_uses",
    "delete",
    "find",
    "find_named",
    "listed",
    "record",
    "redeemed_at",
    "redeemers",
    "use",
]

COLUMNS = tuple(vouchers.c[field.name] for field in fields(Voucher))


def _voucher(row: Any) -> Voucher:
    return Voucher(**row._mapping)


async def add(connection: AsyncConnection, new: Sequence[Voucher]) -> None:
    """Insert vouchers.

    Raises:
        UniqueViolation: one with the same code, name or number exists.
    """
    rows = [
        {column.name: getattr(voucher, column.name) for column in COLUMNS}
        | {"name_key": None if voucher.name is None else name_key(voucher.name)}
        for voucher in new
    ]
    await connection.execute(insert(vouchers), rows)


async def find(connection: AsyncConnection, code: str, *, is_locked: bool = False) -> Voucher | None:
    """Return the voucher with this code.

    Args:
        is_locked: lock the row until the transaction ends.
    """
    return await _one(connection, vouchers.c.code == code, is_locked=is_locked)


async def find_named(connection: AsyncConnection, text: str, *, is_locked: bool = False) -> Voucher | None:
    """Return the voucher with this name or, if there is none, with this code; for callers that may know codes.

    Args:
        text: a name or code in any spelling.
        is_locked: as in `find`.
    """
    if not is_askable(text):
        return None
    named = await _one(connection, vouchers.c.name_key == name_key(text), is_locked=is_locked)
    code = normal_code(text)
    if named is not None or not code:
        return named
    return await find(connection, code, is_locked=is_locked)


async def _one(connection: AsyncConnection, condition: ColumnElement[bool], *, is_locked: bool) -> Voucher | None:
    statement = select(*COLUMNS).where(condition)
    row = (await connection.execute(statement.with_for_update() if is_locked else statement)).one_or_none()
    return None if row is None else _voucher(row)


async def listed(connection: AsyncConnection, *, after: str, limit: int) -> list[Voucher]:
    """Return vouchers in the order of their codes, those after ``after``."""
    rows = await connection.execute(
        select(*COLUMNS).where(vouchers.c.code > after).order_by(vouchers.c.code).limit(limit)
    )
    return [_voucher(row) for row in rows]


async def change(connection: AsyncConnection, voucher: Voucher) -> None:
    """Write the properties that an operator may change: value, audience, availability."""
    await connection.execute(
        update(vouchers)
        .where(vouchers.c.code == voucher.code)
        .values(
            tokens=voucher.tokens,
            pic_times=voucher.pic_times,
            audience=voucher.audience,
            is_available=voucher.is_available,
        )
    )


async def delete(connection: AsyncConnection, code: str) -> None:
    """Delete a voucher, but not its redemptions."""
    await connection.execute(delete_from(vouchers).where(vouchers.c.code == code))


async def use(connection: AsyncConnection, code: str, now: datetime) -> bool:
    """Count one use and lock the voucher until the transaction ends; return whether it could be used."""
    result = await connection.execute(
        update(vouchers)
        .where(
            and_(
                vouchers.c.code == code,
                vouchers.c.is_available.is_(True),
                or_(vouchers.c.expires_at.is_(None), vouchers.c.expires_at > now),
                or_(vouchers.c.max_uses.is_(None), vouchers.c.uses < vouchers.c.max_uses),
            )
        )
        .values(uses=vouchers.c.uses + 1)
    )
    return result.rowcount == 1


async def count_uses(connection: AsyncConnection, code: str, count: int) -> None:
    """Count ``count`` uses, regardless of the voucher's state."""
    await connection.execute(update(vouchers).where(vouchers.c.code == code).values(uses=vouchers.c.uses + count))


async def redeemers(connection: AsyncConnection, code: str) -> set[int]:
    """Return the accounts that have redeemed the voucher."""
    return set(await connection.scalars(select(redemptions.c.account_id).where(redemptions.c.code == code)))


async def redeemed_at(connection: AsyncConnection, code: str, account_id: int) -> datetime | None:
    """Return when the account redeemed the voucher."""
    statement = select(redemptions.c.redeemed_at).where(
        redemptions.c.code == code, redemptions.c.account_id == account_id
    )
    found: datetime | None = (await connection.execute(statement)).scalar_one_or_none()
    return found


async def record(
    connection: AsyncConnection,
    voucher: Voucher,
    account_id: int,
    now: datetime,
    *,
    is_adopted: bool | None = None,
) -> None:
    """Record that the account redeems the voucher.

    Args:
        is_adopted: whether this happened in the legacy application's database, so that the ledger has no entry for it.

    Raises:
        UniqueViolation: the account has redeemed it before.
    """
    await connection.execute(
        insert(redemptions).values(
            code=voucher.code,
            account_id=account_id,
            redeemed_at=now,
            voucher_id=voucher.voucher_id,
            is_adopted=is_adopted,
        )
    )
