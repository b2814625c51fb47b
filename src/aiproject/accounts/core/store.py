"""All SQL on accounts, rows to `Account` and back. Balances are read here and changed in `aiproject.ledger` only."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.accounts.core.model import Account
from aiproject.adapters.db.schema import user as users
from aiproject.protocols.names import lookup_keys

__all__ = [
    "COLUMNS",
    "add",
    "as_account",
    "by_account_id",
    "by_name",
    "by_name_keys",
    "by_uuid",
    "change_password",
    "listed",
    "locked",
    "names_after",
    "set_disabled",
    "set_password",
    "set_profile",
    "set_uuid",
    "stored_password",
]

COLUMNS = (
    users.c.AccountId,
    users.c.Id,
    users.c.UserName,
    users.c.Email,
    users.c.Academy,
    users.c.Tokens,
    users.c.PicTimes,
    users.c.VoiceMs,
    users.c.VoiceUsedMs,
    users.c.CreatedAt,
    users.c.DisabledAt,
    users.c.EmailVerifiedAt,
    users.c.NameKey,
)


def as_account(row: Any) -> Account:
    """Return the account of a row of `COLUMNS`; what follows them is left out."""
    return Account(*row[: len(COLUMNS)])


async def by_name_keys(connection: AsyncConnection, keys: Sequence[str]) -> list[tuple[Account, str]]:
    """Return the accounts with these name keys in the order of the keys, each with its stored password."""
    rows = await connection.execute(select(*COLUMNS, users.c.PassWord).where(users.c.NameKey.in_(keys)))
    found = [(as_account(row), row[-1]) for row in rows]
    return found if len(found) < 2 else sorted(found, key=lambda pair: keys.index(pair[0].name_key))


async def by_name(connection: AsyncConnection, name: str) -> tuple[Account, str] | None:
    """Return the account with this name and its stored password.

    One that is stored under the very key of ``name`` wins over one whose name differs by ignorable characters.
    """
    keys = lookup_keys(name)
    found = await by_name_keys(connection, keys) if keys else []
    return found[0] if found else None


async def by_uuid(connection: AsyncConnection, uuid: str) -> Account | None:
    """Return the account with this uuid."""
    row = (await connection.execute(select(*COLUMNS).where(users.c.Id == uuid))).one_or_none()
    return None if row is None else as_account(row)


async def names_after(connection: AsyncConnection, account_id: int, limit: int) -> list[tuple[int, str, str]]:
    """Return number, name and name key of accounts with higher numbers, in the order of numbers."""
    number = users.c.AccountId
    statement = select(number, users.c.UserName, users.c.NameKey).where(number > account_id)
    return [tuple(row) for row in await connection.execute(statement.order_by(number).limit(limit))]


async def listed(connection: AsyncConnection, *, after: str, limit: int) -> list[Account]:
    """Return accounts ordered by name key, those after the key ``after``."""
    rows = await connection.execute(
        select(*COLUMNS).where(users.c.NameKey > after).order_by(users.c.NameKey).limit(limit)
    )
    return [as_account(row) for row in rows]


async def count(connection: AsyncConnection) -> int:
    """Return how many accounts there are."""
    return int((await connection.execute(select(func.count()).select_from(users))).scalar_one())


async def add(
    connection: AsyncConnection,
    *,
    account_id: int,
    uuid: str,
    name_key: str,
    username: str,
    password: str,
    email: str,
    academy: str | None,
    now: datetime,
) -> None:
    """Insert an account without any quota.

    Raises:
        UniqueViolation: the name, the uuid or the number is taken.
    """
    await connection.execute(
        insert(users).values(
            AccountId=account_id,
            Id=uuid,
            NameKey=name_key,
            UserName=username,
            PassWord=password,
            Email=email,
            Academy=academy,
            Tokens=0,
            PicTimes=0,
            VoiceMs=None,
            VoiceUsedMs=0,
            CreatedAt=now,
        )
    )


async def stored_password(connection: AsyncConnection, account_id: int) -> str | None:
    """Return an account's stored password; ``None``: there is no such account."""
    found = (await connection.execute(select(users.c.PassWord).where(users.c.AccountId == account_id))).one_or_none()
    return None if found is None else str(found[0])


async def set_password(connection: AsyncConnection, account_id: int, *, old: str, new: str) -> None:
    """Store the same password in another form, unless somebody else has replaced it meanwhile."""
    await connection.execute(
        update(users).where(users.c.AccountId == account_id, users.c.PassWord == old).values(PassWord=new)
    )


async def change_password(
    connection: AsyncConnection, account_id: int, *, new: str, now: datetime, old: str | None = None
) -> bool:
    """Store another password.

    Args:
        old: what must be stored still; ``None``: whatever is.

    Returns:
        whether it was changed: there is such an account, and nobody else was faster.
    """
    query = update(users).where(users.c.AccountId == account_id)
    if old is not None:
        query = query.where(users.c.PassWord == old)
    return (await connection.execute(query.values(PassWord=new, PasswordChangedAt=now))).rowcount == 1


async def set_uuid(connection: AsyncConnection, account_id: int, uuid: str) -> bool:
    """Give an account another uuid; say whether there is such an account."""
    return (
        await connection.execute(update(users).where(users.c.AccountId == account_id).values(Id=uuid))
    ).rowcount == 1


async def by_account_id(connection: AsyncConnection, account_id: int) -> Account | None:
    """Return the account with this number."""
    row = (await connection.execute(select(*COLUMNS).where(users.c.AccountId == account_id))).one_or_none()
    return None if row is None else as_account(row)


async def set_disabled(connection: AsyncConnection, account_id: int, at: datetime | None) -> None:
    """Disable an account from ``at`` on, or enable it again."""
    await connection.execute(update(users).where(users.c.AccountId == account_id).values(DisabledAt=at))


async def locked(connection: AsyncConnection, account_id: int) -> Account | None:
    """Return an account that is not deleted, and keep everybody else from changing it until the transaction ends."""
    statement = select(*COLUMNS).where(users.c.AccountId == account_id, users.c.DeletedAt.is_(None)).with_for_update()
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else as_account(row)


async def set_profile(connection: AsyncConnection, account_id: int, **columns: Any) -> None:
    """Write columns of an account, by their names in the table; balances are not among them.

    Raises:
        UniqueViolation: the name is taken.
    """
    await connection.execute(update(users).where(users.c.AccountId == account_id).values(**columns))
