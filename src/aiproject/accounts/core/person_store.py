"""SQL on the person behind an account: address, academy, the marks of password and verification, and the farewell."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.accounts.core.model import Account
from aiproject.accounts.core.store import COLUMNS, as_account
from aiproject.adapters.db.schema import user as users

__all__ = ["State", "change", "erase", "lock", "password_changed_at", "verified", "verified_at_address"]


class State(NamedTuple):
    """What decides whether an account may be acted for, read under its lock."""

    is_disabled: bool
    password_changed_at: datetime | None
    email: str
    email_verified_at: datetime | None


async def lock(connection: AsyncConnection, account_id: int) -> State | None:
    """Lock an account's row until the transaction ends; ``None``: there is none, or its owner has left."""
    query = select(
        users.c.DisabledAt, users.c.PasswordChangedAt, users.c.Email, users.c.EmailVerifiedAt
    ).where(users.c.AccountId == account_id, users.c.DeletedAt.is_(None))  # fmt: skip
    row = (await connection.execute(query.with_for_update())).one_or_none()
    return None if row is None else State(row[0] is not None, *row[1:])


async def password_changed_at(connection: AsyncConnection, account_id: int) -> datetime | None:
    """Return when the password was changed last."""
    query = select(users.c.PasswordChangedAt).where(users.c.AccountId == account_id)
    found: datetime | None = (await connection.execute(query)).scalar_one_or_none()
    return found


async def change(connection: AsyncConnection, account_id: int, **values: Any) -> bool:
    """Set columns of an account by their names; return whether it is there and its owner has not left."""
    is_meant = users.c.AccountId == account_id, users.c.DeletedAt.is_(None)
    return bool((await connection.execute(update(users).where(*is_meant).values(**values))).rowcount)


async def verified(connection: AsyncConnection, account_id: int, email: str, now: datetime) -> bool:
    """Note that mail to ``email`` arrives; return whether that is still the account's address."""
    is_meant = users.c.AccountId == account_id, users.c.Email == email, users.c.DeletedAt.is_(None)
    return bool((await connection.execute(update(users).where(*is_meant).values(EmailVerifiedAt=now))).rowcount)


async def verified_at_address(connection: AsyncConnection, email: str, *, limit: int) -> Sequence[Account]:
    """Return the accounts with this verified address, whatever its case."""
    query = select(*COLUMNS).where(func.lower(users.c.Email) == email.lower(), users.c.EmailVerifiedAt.is_not(None))
    rows = await connection.execute(query.order_by(users.c.AccountId).limit(limit))
    return [as_account(row) for row in rows]


async def erase(
    connection: AsyncConnection,
    account_id: int,
    *,
    uuid: str,
    username: str,
    name_key: str,
    password: str,
    now: datetime,
) -> bool:
    """Replace or empty everything of the person; return whether there was one. The ledger's columns stay.

    Raises:
        UniqueViolation: the replacement is taken.
    """
    return await change(
        connection,
        account_id,
        Id=uuid,
        UserName=username,
        NameKey=name_key,
        PassWord=password,
        Email="",
        Academy=None,
        EmailVerifiedAt=None,
        PasswordChangedAt=now,
        DisabledAt=now,
        DeletedAt=now,
    )
